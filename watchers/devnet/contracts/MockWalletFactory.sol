// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

import {MockSmartWallet} from "./MockSmartWallet.sol";

/// Puts MockSmartWallets where CREATE2 says, and fails in the ways of a hostile factory. For tests of sign-in.
contract MockWalletFactory {
    function create(address owner, MockSmartWallet.Mood mood, bytes32 salt) external returns (address) {
        return address(new MockSmartWallet{salt: salt}(owner, mood));
    }

    function addressOf(address owner, MockSmartWallet.Mood mood, bytes32 salt) external view returns (address) {
        bytes32 code = keccak256(abi.encodePacked(type(MockSmartWallet).creationCode, abi.encode(owner, mood)));
        return address(uint160(uint256(keccak256(abi.encodePacked(bytes1(0xff), this, salt, code)))));
    }

    /// Creates the wallet, and then wastes what gas there is.
    function squander(address owner, MockSmartWallet.Mood mood, bytes32 salt) external {
        new MockSmartWallet{salt: salt}(owner, mood);
        while (gasleft() > 20_000) {}
    }

    function fail() external pure {
        revert("no");
    }

    function loop() external pure {
        while (true) {}
    }

    function bomb() external pure {
        assembly {
            return(0, 1000000)
        }
    }
}
