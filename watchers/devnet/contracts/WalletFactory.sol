// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {BudgetWallet} from "./BudgetWallet.sol";

/// Deploys one BudgetWallet per user, or registers one that exists. The wallet's own first logs (its roles) stand
/// before WalletCreated in the transaction: a wallet counts from the log that creates it.
contract WalletFactory {
    event WalletCreated(address indexed user, address indexed wallet, uint256 salt);
    event WalletRegistered(address indexed user, address indexed wallet);

    error HasWallet(address wallet);

    mapping(address user => address) public walletOf;

    function createWallet(uint256 salt) external returns (address wallet) {
        if (walletOf[msg.sender] != address(0)) revert HasWallet(walletOf[msg.sender]);
        wallet = address(new BudgetWallet{salt: keccak256(abi.encode(msg.sender, salt))}(msg.sender));
        walletOf[msg.sender] = wallet;
        emit WalletCreated(msg.sender, wallet, salt);
    }

    function registerWallet(address wallet) external {
        if (walletOf[msg.sender] != address(0)) revert HasWallet(walletOf[msg.sender]);
        walletOf[msg.sender] = wallet;
        emit WalletRegistered(msg.sender, wallet);
    }
}
