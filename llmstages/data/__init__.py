"""From files to tables to rows that models train on."""
