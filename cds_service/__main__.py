"""`python -m cds_service` is the `varsel` command."""

from cds_service.cli import main

main()
