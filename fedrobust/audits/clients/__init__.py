"""Audits of clients: what the server gathers about them over the rounds, from their updates alone."""

from fedrobust.audits.clients.base import ClientAudit
from fedrobust.audits.clients.reputation import Reputation
from fedrobust.audits.clients.rule_scores import RuleScores
from fedrobust.audits.clients.update_clustering import UpdateClustering

__all__ = ["ClientAudit", "Reputation", "RuleScores", "UpdateClustering"]
