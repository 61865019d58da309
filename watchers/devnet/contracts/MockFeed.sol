// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

/// One phase's answers, as a Chainlink aggregator keeps them.
contract MockAggregator {
    error NoDataPresent();

    struct Round {
        int256 answer;
        uint256 updatedAt;
        uint80 answeredInRound;
    }

    Round[] internal rounds; // round 1 is the first

    function push(int256 answer, uint256 updatedAt, uint80 answeredInRound) external {
        rounds.push(Round(answer, updatedAt, answeredInRound));
    }

    function latestRound() external view returns (uint256) {
        return rounds.length;
    }

    function round(uint256 id) external view returns (Round memory) {
        if (id == 0 || id > rounds.length) revert NoDataPresent();
        return rounds[id - 1];
    }
}

/// As much of Chainlink's price feed proxy as the product reads: rounds of several aggregators one after the other,
/// the phase in the upper bits of a round's id. A test sets answers, or makes it fail.
contract MockFeed {
    error Broken();

    uint8 public immutable decimals;
    uint16 public phaseId;
    bool public broken;
    mapping(uint16 phase => MockAggregator) public phaseAggregators;

    constructor(uint8 decimals_) {
        decimals = decimals_;
        nextPhase();
    }

    function nextPhase() public {
        phaseId += 1;
        phaseAggregators[phaseId] = new MockAggregator();
    }

    function set(int256 answer) external {
        MockAggregator newest = phaseAggregators[phaseId];
        newest.push(answer, block.timestamp, uint80(newest.latestRound() + 1));
    }

    function setRound(int256 answer, uint256 updatedAt, uint80 answeredInRound) external {
        phaseAggregators[phaseId].push(answer, updatedAt, answeredInRound);
    }

    function setBroken(bool broken_) external {
        broken = broken_;
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return _round(phaseId, phaseAggregators[phaseId].latestRound());
    }

    function getRoundData(uint80 id) external view returns (uint80, int256, uint256, uint256, uint80) {
        return _round(uint16(id >> 64), uint64(id));
    }

    function _round(uint16 phase, uint256 id) internal view returns (uint80, int256, uint256, uint256, uint80) {
        if (broken) revert Broken();
        MockAggregator.Round memory found = phaseAggregators[phase].round(id);
        uint80 base = uint80(phase) << 64;
        return (base | uint80(id), found.answer, found.updatedAt, found.updatedAt, base | found.answeredInRound);
    }
}
