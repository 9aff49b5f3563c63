def test_it_acts(robot) -> None:
    for _ in range(5):
        robot.period()
    assert len(robot.commands) == 5
