// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

interface IERC20 {
    function approve(address spender, uint256 amount) external returns (bool);
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
}

interface IVault {
    function asset() external view returns (address);
    function deposit(uint256 assets, address receiver) external returns (uint256 shares);
    function redeem(uint256 shares, address receiver, address owner) external returns (uint256 assets);
    function previewRedeem(uint256 shares) external view returns (uint256 assets);
}

/// As much of a yield time lock as the product reads: assets lie in a vault until their time has come. A hundredth of a
/// percent of what comes out is kept.
contract MockYieldLock {
    event YieldLockCreated(
        uint256 indexed lockId,
        address indexed depositor,
        address indexed vault,
        address underlyingToken,
        uint256 principalAssets,
        uint256 shares,
        uint256 unlockTime,
        string label
    );
    event YieldLockWithdrawn(
        uint256 indexed lockId,
        address indexed depositor,
        address indexed vault,
        uint256 shares,
        uint256 totalAssets,
        uint256 fee,
        uint256 netAssets
    );

    error NotDepositor();
    error StillLocked(uint256 unlockTime);

    struct Lock {
        address depositor;
        IVault vault;
        uint256 principal;
        uint256 shares;
        uint256 unlockTime;
    }

    uint256 public constant FEE_BPS = 1;
    mapping(uint256 lockId => Lock) public locks;
    uint256 public lockCount;

    function lock(IVault vault, uint256 assets, uint256 unlockTime, string calldata label)
        external
        returns (uint256 lockId)
    {
        IERC20 token = IERC20(vault.asset());
        token.transferFrom(msg.sender, address(this), assets);
        token.approve(address(vault), assets);
        uint256 shares = vault.deposit(assets, address(this));
        lockId = lockCount++;
        locks[lockId] = Lock(msg.sender, vault, assets, shares, unlockTime);
        emit YieldLockCreated(
            lockId, msg.sender, address(vault), address(token), assets, shares, unlockTime, label
        );
    }

    function withdraw(uint256 lockId) external {
        Lock memory held = locks[lockId];
        if (held.depositor != msg.sender) revert NotDepositor();
        if (block.timestamp < held.unlockTime) revert StillLocked(held.unlockTime);
        delete locks[lockId];
        uint256 assets = held.vault.redeem(held.shares, address(this), address(this));
        uint256 fee = (assets * FEE_BPS) / 10_000;
        IERC20(held.vault.asset()).transfer(msg.sender, assets - fee);
        emit YieldLockWithdrawn(lockId, msg.sender, address(held.vault), held.shares, assets, fee, assets - fee);
    }

    function getAccruedYield(uint256 lockId) external view returns (uint256 accrued, uint256 currentAssets) {
        Lock memory held = locks[lockId];
        if (held.shares > 0) currentAssets = held.vault.previewRedeem(held.shares);
        if (currentAssets > held.principal) accrued = currentAssets - held.principal;
    }
}
