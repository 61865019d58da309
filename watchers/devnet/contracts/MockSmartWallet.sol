// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// A contract wallet with one owner's key, and every way to answer ERC-1271 wrongly. For tests of sign-in.
contract MockSmartWallet {
    enum Mood {
        Honest,
        Refusing,
        Reverting,
        RevertingYes,
        Looping,
        Writing,
        Silent,
        Short,
        Dirty,
        Echoing,
        Long,
        Bombing,
        Burning,
        Heavy
    }

    address public owner;
    Mood public mood;
    uint256 public asked;

    constructor(address owner_, Mood mood_) {
        owner = owner_;
        mood = mood_;
    }

    /// Anyone may: it stands for the step that makes a deployed wallet ready to verify ("prepare" of ERC-6492).
    function enrol(address owner_) external {
        owner = owner_;
    }

    function isValidSignature(bytes32 digest, bytes calldata signature) external returns (bytes4) {
        if (mood == Mood.Heavy) toil();
        else if (mood != Mood.Honest) misbehave();
        if (signature.length != 65) return 0xffffffff;
        address signer = ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
        return signer != address(0) && signer == owner ? this.isValidSignature.selector : bytes4(0xffffffff);
    }

    /// As dear as the curves that a chain has no precompile for.
    function toil() private view {
        uint256 enough = gasleft() - 1_000_000;
        while (gasleft() > enough) {}
    }

    function misbehave() private {
        Mood now_ = mood;
        if (now_ == Mood.Refusing) give(0, 32);
        if (now_ == Mood.Reverting) revert("no");
        if (now_ == Mood.RevertingYes) {
            bytes32 word = approval();
            assembly ("memory-safe") {
                mstore(0, word)
                revert(0, 32)
            }
        }
        if (now_ == Mood.Writing) ++asked;
        if (now_ == Mood.Silent) give(approval(), 0);
        if (now_ == Mood.Short) give(approval(), 4);
        if (now_ == Mood.Dirty) give(approval() | bytes32(uint256(1)), 32);
        if (now_ == Mood.Long) give(approval(), 64);
        if (now_ == Mood.Bombing) give(approval(), 1_000_000);
        if (now_ == Mood.Burning) give(approval(), type(uint256).max);
        if (now_ == Mood.Echoing) {
            assembly ("memory-safe") {
                let to := mload(0x40)
                calldatacopy(to, 0, calldatasize())
                return(to, 32)
            }
        }
        while (now_ == Mood.Looping) {}
        give(approval(), 32);
    }

    function approval() private pure returns (bytes32) {
        return bytes32(MockSmartWallet.isValidSignature.selector);
    }

    function give(bytes32 word, uint256 length) private pure {
        assembly {
            mstore(0, word)
            return(0, length)
        }
    }
}
