"""What starts work without a click: experiment files, landed adapters, failed runs."""
