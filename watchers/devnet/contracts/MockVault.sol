// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

interface IMintable {
    function mint(address to, uint256 amount) external;
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
    function balanceOf(address account) external view returns (uint256);
}

/// As much of an ERC-4626 vault as the product reads, with a share price that a test sets. What the price promises
/// beyond the assets that came in is minted when it is asked for.
contract MockVault {
    event Deposit(address indexed sender, address indexed owner, uint256 assets, uint256 shares);
    event Withdraw(
        address indexed sender, address indexed receiver, address indexed owner, uint256 assets, uint256 shares
    );
    event Transfer(address indexed from, address indexed to, uint256 value);

    error NotOwner();

    uint256 public constant ONE = 1e18;
    string public constant name = "Mock Vault";
    string public constant symbol = "mvUSDC";
    uint8 public constant decimals = 6;
    IMintable public immutable asset;
    uint256 public sharePrice = ONE; // assets per share, 18 decimals
    uint256 public totalSupply;
    mapping(address account => uint256) public balanceOf;

    constructor(IMintable asset_) {
        asset = asset_;
    }

    function setSharePrice(uint256 price) external {
        sharePrice = price;
    }

    function totalAssets() external view returns (uint256) {
        return convertToAssets(totalSupply);
    }

    function convertToAssets(uint256 shares) public view returns (uint256) {
        return (shares * sharePrice) / ONE;
    }

    function convertToShares(uint256 assets) public view returns (uint256) {
        return (assets * ONE) / sharePrice;
    }

    function previewRedeem(uint256 shares) external view returns (uint256) {
        return convertToAssets(shares);
    }

    function transfer(address to, uint256 shares) external returns (bool) {
        balanceOf[msg.sender] -= shares;
        balanceOf[to] += shares;
        emit Transfer(msg.sender, to, shares);
        return true;
    }

    function deposit(uint256 assets, address receiver) external returns (uint256 shares) {
        shares = convertToShares(assets);
        asset.transferFrom(msg.sender, address(this), assets);
        totalSupply += shares;
        balanceOf[receiver] += shares;
        emit Transfer(address(0), receiver, shares);
        emit Deposit(msg.sender, receiver, assets, shares);
    }

    function redeem(uint256 shares, address receiver, address owner) external returns (uint256 assets) {
        if (msg.sender != owner) revert NotOwner();
        assets = convertToAssets(shares);
        balanceOf[owner] -= shares;
        totalSupply -= shares;
        uint256 held = asset.balanceOf(address(this));
        if (held < assets) asset.mint(address(this), assets - held);
        asset.transfer(receiver, assets);
        emit Transfer(owner, address(0), shares);
        emit Withdraw(msg.sender, receiver, owner, assets, shares);
    }
}
