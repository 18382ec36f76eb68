"""Pulling from a FHIR server: SMART Backend Services for access, Bulk Data for the export."""
