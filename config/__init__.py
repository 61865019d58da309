"""Facts every process agrees on: settings, chains, names, logs, metrics, embedded engines. Imports nothing of ours."""

import decimal

EXACT_DIGITS = 120
"""Digits of decimal arithmetic in every process: a uint256 has 78, with 18 places 96, and sums need a few more. With
Python's own 28 a sum of large amounts is rounded without a word, and rounding one to cents raises."""

decimal.DefaultContext.prec = EXACT_DIGITS  # of every thread to come
decimal.getcontext().prec = EXACT_DIGITS  # of this one, and of all tasks that it starts
