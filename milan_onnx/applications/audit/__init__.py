"""Auditing a network: are there units of what a policy forbids?

A policy (`policy`) names groups of concepts, where to look and limits; `audit_run` finds the units
and judges; docs/audit.md says how far to trust the answer.
"""

from __future__ import annotations

from milan_onnx.applications.audit.auditing import AuditOptions, audit_run
from milan_onnx.applications.audit.policy import Policy, Rule, default_policy_text, read_policy
from milan_onnx.applications.audit.result import Audit, Hit, Verdict

__all__ = [
    "Audit",
    "AuditOptions",
    "Hit",
    "Policy",
    "Rule",
    "Verdict",
    "audit_run",
    "default_policy_text",
    "read_policy",
]
