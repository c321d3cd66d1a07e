"""What the rooms share: plain Python that knows no room and imports no Dagster."""
