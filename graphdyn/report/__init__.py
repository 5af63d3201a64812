"""Records -> tables and figures. Never measures."""
