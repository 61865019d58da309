// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// Whether an account stands behind a signature, by ERC-6492, ERC-1271 or its key. Never deployed: sent as creation code
/// in an eth_call it leaves one byte where a contract's code would be, 1 for yes and 0 for no, and nothing persists.
///
/// Everything it calls may be hostile. It copies no return data and bounds the gas of each call, so that whatever they do
/// ends in an answer; store/signatures.py gives gas enough for all three.
contract SignatureValidator {
    bytes32 private constant APPROVED = bytes32(bytes4(0x1626ba7e));
    uint256 private constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    uint256 private constant APPROVAL_GAS = 4_000_000; // ten times a passkey verified without a precompile
    uint256 private constant PREPARATION_GAS = 7_000_000; // more than creating the largest contract there can be

    /// `signature` is the inner one when it came wrapped (ERC-6492); `factory` and `preparation` count only then.
    constructor(
        address account,
        bytes32 digest,
        bytes memory signature,
        bool wrapped,
        address factory,
        bytes memory preparation
    ) {
        bool valid;
        if (!wrapped && account.code.length == 0) {
            valid = recovers(account, digest, signature);
        } else {
            bytes memory question = abi.encodeWithSelector(bytes4(APPROVED), digest, signature);
            valid = approves(account, question);
            if (!valid && wrapped) {
                // Not there yet, or there and not ready: the factory's call makes it so.
                prepare(factory, preparation);
                valid = approves(account, question);
            }
        }
        assembly ("memory-safe") {
            mstore8(0, valid)
            return(0, 1)
        }
    }

    /// The whole word is compared and its length too: a contract that answers with its own calldata approves nothing,
    /// and neither does an account without code, which answers nothing.
    function approves(address account, bytes memory question) private view returns (bool approved) {
        bytes32 approval = APPROVED;
        uint256 most = APPROVAL_GAS;
        assembly ("memory-safe") {
            let done := staticcall(most, account, add(question, 32), mload(question), 0, 32)
            approved := and(and(done, eq(returndatasize(), 32)), eq(mload(0), approval))
        }
    }

    /// Bounded, so that what comes of it can still be asked.
    function prepare(address factory, bytes memory preparation) private {
        uint256 most = PREPARATION_GAS;
        assembly ("memory-safe") {
            pop(call(most, factory, 0, add(preparation, 32), mload(preparation), 0, 0))
        }
    }

    /// The rules of realtime/siwe.py: r, s and v of 65 bytes, s in the lower half.
    function recovers(address account, bytes32 digest, bytes memory signature) private pure returns (bool) {
        if (signature.length != 65) return false;
        bytes32 r;
        bytes32 s;
        uint8 v;
        assembly ("memory-safe") {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
            v := byte(0, mload(add(signature, 96)))
        }
        if (v < 2) v += 27;
        if (uint256(s) > HALF_ORDER) return false;
        address signer = ecrecover(digest, v, r, s);
        return signer != address(0) && signer == account; // ecrecover says zero for "nobody"
    }
}
