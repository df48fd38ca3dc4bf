"""The paper's own files: published checkpoints and MILANNOTATIONS, without the paper's code."""
