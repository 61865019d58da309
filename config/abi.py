"""What our contracts say, and how it is told apart: each event's signature and topic0 (its Keccak-256, lower-case hex).

Topics are stated, not computed, so that a reader can compare them with an explorer; a test computes them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# Budget wallets ---------------------------------------------------------------------------------------------------

BUCKET_CREATED: Final = "0xaa0412a621f43eaa6351d59b17fc8854de9a6d9a67a664d3ea56dd0393547288"
BUCKET_UPDATED: Final = "0xa7083a0250abce15186cd07885aba3f71396cfd7d899d87141aedd48c5a27cbd"
BUCKET_FUNDED: Final = "0xd01299d91bb93f9fb900d04f6f15e1f37e590d4532e624fdd034ca96067e7321"
SPENT_FROM_BUCKET: Final = "0x21a8971d7f2f4d99234fe6ef84f11cd52662cd77cbf3af7a75d489f494466b7e"
BUCKET_TRANSFER: Final = "0x8cd6167d21bbc19a0781a8c30d96d83c0b4fe5441f7f5367cfa5dfcb0de5966e"
FUNDS_DEPOSITED: Final = "0xdf4dcf17030d087ed1d90ed3c90719c7260706c1c4a88505dd2d0a982887cf43"
MONTHLY_LIMIT_RESET: Final = "0x48a7cae487aff3cf6daa7e2717d471ebd3aaf099c2a333220974d499cecd6a02"
DELEGATE_ADDED: Final = "0x5445f29a802bfabd877ef3e612e6cbf11f61ed37b0d1881dd83277d264339294"
DELEGATE_REMOVED: Final = "0x5fd090e6ffe52b190bc83ab8daf49a555b610b4d87c152ad0aa8f6b1ce134e76"
UNALLOCATED_WITHDRAW: Final = "0x15f1555d081a538ac06f26daf118fee2d94da815ffd1bf630ab7fdb30325e921"
EMERGENCY_WITHDRAW: Final = "0xf24ef89f38eadc1bde50701ad6e4d6d11a2dc24f7cf834a486991f3883328504"

# The planned V2 contract ------------------------------------------------------------------------------------------

ACCOUNT_OPERATION: Final = "0xf894688d0160c8daff08cc51d9cdc8a24c3c84fe63970744f9143a5cae611669"
FEE_COLLECTION: Final = "0x312763501536a2d98ff73a76cf598adb2690858e28e64b4ee756ba55465f197f"
USER_INITIALIZED: Final = "0x51f3e16491a1245725e3dd6aab55df59539bc9a5a3c1984f588ca1beef5d2238"
INVESTMENT_ACCOUNT_ENABLED: Final = "0x1b00272fbec2c3b907297d17909dd773426a5dbe3c2fc18603ce30a367ce3d4e"
SAVINGS_ACCOUNT_ENABLED: Final = "0x8e55713e384ed740755767c5298c3df2e16117034070ea6e6cd1737286773320"
FEE_UPDATED: Final = "0xa959d4d2b0cc07c4515dc6e929a0f9c8ade49c6edb5133ba973de9b8ad745861"

# Investments ------------------------------------------------------------------------------------------------------

DEPOSIT: Final = "0xdcbc1c05240f31ff3ad067ef1ee35ce4997762752e3a095284754544f4c709d7"
WITHDRAW: Final = "0xfbde797d201c681b91056529119e0b02407c7bb96a4a2c75c01fc9667232c8db"
"""ERC-4626; a share is an ERC-20 token that the vault itself is."""
YIELD_LOCK_CREATED: Final = "0x75874e14ae70a558327018ae91945c915d452c1037aba1068f5e906080be6e39"
YIELD_LOCK_WITHDRAWN: Final = "0xb39f1b5049300379b5cb2193d758abc4de137cdf411a76570726ebffa10dc300"
EMERGENCY_FUNDS_CLAIMED: Final = "0xe93a252c81e61e4124c8d1cc736e404d244820921d819a842f8f5ff1157f0e81"
"""How a lock ends whose shares the contract's owner had to redeem early."""

# The factory ------------------------------------------------------------------------------------------------------

WALLET_CREATED: Final = "0x4459976dae5d173eda0ac09c39b840bed814c9d1e490e8b9ba23148e4b19a837"
WALLET_REGISTERED: Final = "0xf3c51abd663c00cbfa5a958e8d688917a1e072399a19c9eb70819641f3b5d856"

# OpenZeppelin -----------------------------------------------------------------------------------------------------

PAUSED: Final = "0x62e78cea01bee320cd4e420270b5ea74000d11b0c9f74754ebdbfc544b05a258"
UNPAUSED: Final = "0x5db9ee0a495bf2e6ff9c91a7834c1ba4fdd244a5e8aa4e537bd38aeae4b073aa"
ROLE_GRANTED: Final = "0x2f8788117e7eff1d82e926ec794901d17c78024a50270940304540a733656f0d"
ROLE_REVOKED: Final = "0xf6391f5c32d9c69d2a47ea670b442974b53935d1edc7fd64eb21e047a839171b"
ROLE_ADMIN_CHANGED: Final = "0xbd79b86ffe0ab8e8776151514217cd7cacd52c909f66475c3af44e129f0b00ff"
OWNERSHIP_TRANSFERRED: Final = "0x8be0079c531659141344cd1fd0a4f28419497f9722a3daafe3b4186f6b6457e0"

# Standards --------------------------------------------------------------------------------------------------------

TRANSFER: Final = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""ERC-20; ERC-721 shares it, with a fourth topic."""
USER_OPERATION_EVENT: Final = "0x49628fd1471006c1482da88028e9ce4dbb080b815c9b0344d39e5a8e6ec1419f"
"""ERC-4337: who an operation was for."""

SIGNATURES: Final[Mapping[str, str]] = {
    BUCKET_CREATED: "BucketCreated(address,string,uint256)",
    BUCKET_UPDATED: "BucketUpdated(address,string,uint256,bool)",
    BUCKET_FUNDED: "BucketFunded(address,string,uint256,address)",
    SPENT_FROM_BUCKET: "SpentFromBucket(address,string,uint256,address,address)",
    BUCKET_TRANSFER: "BucketTransfer(address,string,string,uint256,address)",
    FUNDS_DEPOSITED: "FundsDeposited(address,uint256,address)",
    MONTHLY_LIMIT_RESET: "MonthlyLimitReset(address,string)",
    DELEGATE_ADDED: "DelegateAdded(address,address,string)",
    DELEGATE_REMOVED: "DelegateRemoved(address,address,string)",
    UNALLOCATED_WITHDRAW: "UnallocatedWithdraw(address,address,uint256,address)",
    EMERGENCY_WITHDRAW: "EmergencyWithdraw(address,address,uint256)",
    ACCOUNT_OPERATION: "AccountOperation(address,uint8,uint8,bytes32,uint256,address)",
    FEE_COLLECTION: "FeeCollection(address,uint8,uint256,address)",
    USER_INITIALIZED: "UserInitialized(address)",
    INVESTMENT_ACCOUNT_ENABLED: "InvestmentAccountEnabled(address)",
    SAVINGS_ACCOUNT_ENABLED: "SavingsAccountEnabled(address)",
    FEE_UPDATED: "FeeUpdated(string,uint256,uint256)",
    DEPOSIT: "Deposit(address,address,uint256,uint256)",
    WITHDRAW: "Withdraw(address,address,address,uint256,uint256)",
    YIELD_LOCK_CREATED: "YieldLockCreated(uint256,address,address,address,uint256,uint256,uint256,string)",
    YIELD_LOCK_WITHDRAWN: "YieldLockWithdrawn(uint256,address,address,uint256,uint256,uint256,uint256)",
    EMERGENCY_FUNDS_CLAIMED: "EmergencyFundsClaimed(uint256,address,uint256,uint256,uint256)",
    WALLET_CREATED: "WalletCreated(address,address,uint256)",
    WALLET_REGISTERED: "WalletRegistered(address,address)",
    PAUSED: "Paused(address)",
    UNPAUSED: "Unpaused(address)",
    ROLE_GRANTED: "RoleGranted(bytes32,address,address)",
    ROLE_REVOKED: "RoleRevoked(bytes32,address,address)",
    ROLE_ADMIN_CHANGED: "RoleAdminChanged(bytes32,bytes32,bytes32)",
    OWNERSHIP_TRANSFERRED: "OwnershipTransferred(address,address)",
    TRANSFER: "Transfer(address,address,uint256)",
    USER_OPERATION_EVENT: "UserOperationEvent(bytes32,address,address,uint256,bool,uint256,uint256)",
}
"""Every topic above with its event's canonical signature."""

# Who may say what -------------------------------------------------------------------------------------------------

FACTORY_TOPICS: Final = (WALLET_CREATED, WALLET_REGISTERED)
"""Believed from the chain table's factories."""
WALLET_TOPICS: Final = (
    BUCKET_CREATED,
    BUCKET_UPDATED,
    BUCKET_FUNDED,
    SPENT_FROM_BUCKET,
    BUCKET_TRANSFER,
    FUNDS_DEPOSITED,
    MONTHLY_LIMIT_RESET,
    DELEGATE_ADDED,
    DELEGATE_REMOVED,
    UNALLOCATED_WITHDRAW,
    EMERGENCY_WITHDRAW,
    ACCOUNT_OPERATION,
    FEE_COLLECTION,
    USER_INITIALIZED,
    INVESTMENT_ACCOUNT_ENABLED,
    SAVINGS_ACCOUNT_ENABLED,
)
"""Believed from known wallets, about their users."""
VAULT_TOPICS: Final = (DEPOSIT, WITHDRAW, TRANSFER)
"""Believed from the chain table's vaults."""
LOCK_TOPICS: Final = (YIELD_LOCK_CREATED, YIELD_LOCK_WITHDRAWN, EMERGENCY_FUNDS_CLAIMED)
"""Believed from the chain table's yield locks."""
NOTICE_TOPICS: Final = (
    PAUSED,
    UNPAUSED,
    ROLE_GRANTED,
    ROLE_REVOKED,
    ROLE_ADMIN_CHANGED,
    OWNERSHIP_TRANSFERRED,
    FEE_UPDATED,
)
"""Believed from wallets and factories alike; they move no money."""

ENTRY_POINTS: Final = frozenset(
    {
        "0x5ff137d4b0fdcd49dca30c7cf57e578a026d2789",  # v0.6
        "0x0000000071727de22e5e9d8baf0edac6f37da032",  # v0.7
        "0x4337084d9e255ff0702461cf8895ce9e3b5ff108",  # v0.8
    }
)
"""ERC-4337 entry points, the same on every chain. From elsewhere a UserOperationEvent is a claim: believing it would
let a delegate's own contract book its spends under the owner's name."""

BALANCE_OF: Final = "0x70a08231"
"""Selector of balanceOf(address)."""

# Chainlink's feeds: a proxy over one aggregator a phase; a round's id has the phase in its bits from 64 on.
LATEST_ROUND_DATA: Final = "0xfeaf968c"
"""Selector of latestRoundData() -> (roundId, answer, startedAt, updatedAt, answeredInRound)."""
GET_ROUND_DATA: Final = "0x9a6fc8f5"
"""Selector of getRoundData(uint80), with the same answer."""
PHASE_AGGREGATORS: Final = "0xc1597304"
"""Selector of phaseAggregators(uint16), of a proxy."""
LATEST_ROUND: Final = "0x668a0f02"
"""Selector of latestRound(), of an aggregator."""
CONVERT_TO_ASSETS: Final = "0x07a2d13a"
"""Selector of convertToAssets(uint256), of a vault."""
GET_ACCRUED_YIELD: Final = "0x24d09a8f"
"""Selector of getAccruedYield(uint256), of a yield lock: (yield, currentAssets)."""
