"""The filters of slot ``corpus``, one class in one file; the contract is in ``plugins/corpus/filter.py``."""
