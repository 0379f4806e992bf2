"""``python -m stallscope``."""

from stallscope.cli import main

main()
