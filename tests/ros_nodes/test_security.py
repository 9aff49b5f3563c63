"""SROS2 on the wheels: it cannot be enforced, and nothing runs unprotected where it was asked for. SECURITY.md says so."""

from pathlib import Path

from tests.ros_nodes.harness import Graph

FILES = ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem", "governance.p7s", "permissions.p7s")


def test_where_security_is_enforced_a_node_refuses_to_start_rather_than_run_without(graph: Graph, tmp_path: Path) -> None:
    enclave = tmp_path / "keystore" / "enclaves"
    enclave.mkdir(parents=True)
    for name in FILES:
        (enclave / name).write_text("not a certificate")
    variables = {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path / "keystore"),
    }
    node = graph.start("qtransformer_ros.nodes.sim_node", env=variables)
    assert node.wait(60.0) != 0
    assert "doesn't have the security libraries" in node.output
