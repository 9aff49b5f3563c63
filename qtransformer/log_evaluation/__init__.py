"""Checkpoints judged from logs alone, where no simulator exists; docs/log_evaluation.md says how, and what it is worth."""

from qtransformer.log_evaluation.behaviour import CriticConfig
from qtransformer.log_evaluation.judging import CheckpointScores, LogJudge, best, judge_all, selection_score

__all__ = ["CheckpointScores", "CriticConfig", "LogJudge", "best", "judge_all", "selection_score"]
