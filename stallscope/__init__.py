"""stallscope: finds what stalls an event loop."""

__version__ = "0.1.0"
