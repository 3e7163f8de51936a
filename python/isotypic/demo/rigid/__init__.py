"""The demo of falling bodies and charged particles: GATr beside a plain transformer, with few samples and with many."""
