// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// Says whatever it is told to say: a wallet's and a factory's topics from an address that nobody listed, and logs
/// that carry a known topic with data that cannot be decoded.
contract Impostor {
    event SpentFromBucket(address indexed user, string bucketName, uint256 amount, address recipient, address token);
    event FundsDeposited(address indexed user, uint256 amount, address token);
    event WalletCreated(address indexed user, address indexed wallet, uint256 salt);
    /// The ERC-721 form: the topic of an ERC-20 transfer, with the id indexed and no data.
    event Transfer(address indexed from, address indexed to, uint256 indexed tokenId);

    struct Log {
        bytes32[] topics; // at most 4
        bytes data;
    }

    function spent(address user, string calldata name, uint256 amount, address recipient, address token) external {
        emit SpentFromBucket(user, name, amount, recipient, token);
    }

    function deposited(address user, uint256 amount, address token) external {
        emit FundsDeposited(user, amount, token);
    }

    function created(address user, address wallet, uint256 salt) external {
        emit WalletCreated(user, wallet, salt);
    }

    function collectible(address from, address to, uint256 tokenId) external {
        emit Transfer(from, to, tokenId);
    }

    /// Emits the logs as they are given, in order, in one transaction.
    function raw(Log[] calldata logs) external {
        for (uint256 i = 0; i < logs.length; i++) _log(logs[i].topics, logs[i].data);
    }

    function _log(bytes32[] memory topics, bytes memory data) private {
        uint256 count = topics.length;
        assembly ("memory-safe") {
            let at := add(data, 32)
            let size := mload(data)
            let t := add(topics, 32)
            switch count
            case 0 { log0(at, size) }
            case 1 { log1(at, size, mload(t)) }
            case 2 { log2(at, size, mload(t), mload(add(t, 32))) }
            case 3 { log3(at, size, mload(t), mload(add(t, 32)), mload(add(t, 64))) }
            default { log4(at, size, mload(t), mload(add(t, 32)), mload(add(t, 64)), mload(add(t, 96))) }
        }
    }
}
