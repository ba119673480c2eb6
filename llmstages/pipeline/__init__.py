"""From overrides to artifacts: compose, wire, plan, run, store."""
