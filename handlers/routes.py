"""Which handlers run for what the chain said, in order. This page is the product: nobody registers anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from handlers import accounts, investments, spending, transfers
from handlers import chain_events as chain
from handlers.rules.book import Book

Handler: TypeAlias = Callable[[Book, Any], None]

ON: Mapping[type[chain.ChainEvent], tuple[Handler, ...]] = {
    chain.WalletCreated: (spending.wallet_created,),
    chain.WalletRegistered: (spending.wallet_registered,),
    chain.BucketCreated: (spending.bucket_created,),
    chain.BucketUpdated: (spending.bucket_updated,),
    chain.BucketFunded: (spending.funded,),
    chain.SpentFromBucket: (spending.spent,),
    chain.BucketTransfer: (spending.transferred,),
    chain.FundsDeposited: (spending.deposited,),
    chain.MonthlyLimitReset: (spending.limit_reset,),
    chain.DelegateAdded: (spending.delegate_added,),
    chain.DelegateRemoved: (spending.delegate_removed,),
    chain.UnallocatedWithdraw: (spending.withdrawn,),
    chain.EmergencyWithdraw: (spending.emptied,),
    chain.TokenTransfer: (transfers.token_moved,),
    chain.AccountOperation: (spending.operated, investments.operated),
    chain.VaultDeposit: (investments.vault_deposited,),
    chain.VaultWithdraw: (investments.vault_withdrawn,),
    chain.ShareTransfer: (investments.shares_moved,),
    chain.YieldLockCreated: (investments.locked,),
    chain.YieldLockWithdrawn: (investments.unlocked,),
    # What the contract keeps is told with its operation, by the join of rules/legs.py.
    chain.FeeCollection: (),
    # They open an account, which is all they do.
    chain.UserInitialized: (),
    chain.InvestmentAccountEnabled: (),
    chain.SavingsAccountEnabled: (),
    # Counted and logged; it moves nothing.
    chain.ContractNotice: (),
}


def dispatch(book: Book, event: chain.ChainEvent) -> None:
    """Run every handler of one event on the block's working set; every event of a user belongs to an account."""
    accounts.begin(book, event)
    for handler in ON[type(event)]:
        handler(book, event)
