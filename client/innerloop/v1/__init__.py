"""Generated from protos/innerloop/v1 by scripts/protos. Do not edit."""
