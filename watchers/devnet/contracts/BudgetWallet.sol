// SPDX-License-Identifier: UNLICENSED
pragma solidity ^0.8.28;

interface IERC20 {
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
}

/// The devnet's budget wallet: many users, each with unallocated funds and named buckets that have a monthly limit.
/// Its events are those of the deployed wallets, signature for signature; its inside is our own and for tests only.
/// ETH is address(0). The counter `spent` adds ETH wei and token base units, as the deployed contract does.
contract BudgetWallet {
    event BucketCreated(address indexed user, string bucketName, uint256 monthlyLimit);
    event BucketUpdated(address indexed user, string bucketName, uint256 newLimit, bool active);
    event BucketFunded(address indexed user, string bucketName, uint256 amount, address token);
    event SpentFromBucket(address indexed user, string bucketName, uint256 amount, address recipient, address token);
    event BucketTransfer(address indexed user, string fromBucket, string toBucket, uint256 amount, address token);
    event FundsDeposited(address indexed user, uint256 amount, address token);
    event MonthlyLimitReset(address indexed user, string bucketName);
    event DelegateAdded(address indexed user, address indexed delegate, string bucketName);
    event DelegateRemoved(address indexed user, address indexed delegate, string bucketName);
    event UnallocatedWithdraw(address indexed user, address token, uint256 amount, address recipient);
    event EmergencyWithdraw(address indexed user, address token, uint256 amount);

    event Paused(address account);
    event Unpaused(address account);
    event RoleGranted(bytes32 indexed role, address indexed account, address indexed sender);
    event RoleRevoked(bytes32 indexed role, address indexed account, address indexed sender);
    event RoleAdminChanged(bytes32 indexed role, bytes32 indexed previousAdminRole, bytes32 indexed newAdminRole);
    event OwnershipTransferred(address indexed previousOwner, address indexed newOwner);

    error NotOwner();
    error NotAllowed(address spender);
    error IsPaused();
    error BadName();
    error NoBucket(string name);
    error BucketExists(string name);
    error BucketInactive(string name);
    error ZeroAmount();
    error InsufficientFunds(uint256 available, uint256 wanted);
    error OverLimit(uint256 spent, uint256 amount, uint256 limit);
    error TransferFailed();

    struct Bucket {
        bool exists;
        bool active;
        uint256 limit; // 0 = none
        uint256 spent; // since lastReset
        uint256 lastReset; // block time, seconds
    }

    struct Spend {
        address user;
        string name;
        uint256 amount;
        address recipient;
        address token;
        bytes data; // a call to the recipient after payment; empty = none
    }

    uint256 public constant PERIOD = 30 days;
    bytes32 public constant DEFAULT_ADMIN_ROLE = 0x00;
    bytes32 public constant PAUSER_ROLE = keccak256("PAUSER_ROLE");

    address public owner;
    bool public paused;
    mapping(bytes32 role => mapping(address account => bool)) public hasRole;
    mapping(bytes32 role => bytes32) public getRoleAdmin;
    mapping(address user => mapping(address token => uint256)) public unallocated;
    mapping(address user => mapping(bytes32 key => Bucket)) private buckets;
    mapping(address user => mapping(bytes32 key => mapping(address token => uint256))) private balances;
    mapping(address user => mapping(bytes32 key => mapping(address delegate => bool))) private delegates;
    mapping(address user => bytes32[]) private keys;

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner();
        _;
    }

    modifier whenNotPaused() {
        if (paused) revert IsPaused();
        _;
    }

    constructor(address firstOwner) {
        owner = firstOwner;
        emit OwnershipTransferred(address(0), firstOwner);
        _grant(DEFAULT_ADMIN_ROLE, firstOwner);
        _grant(PAUSER_ROLE, firstOwner);
    }

    // ---- buckets

    function createBucket(string calldata name, uint256 limit) external whenNotPaused {
        if (bytes(name).length == 0 || bytes(name).length > 32) revert BadName();
        bytes32 key = keccak256(bytes(name));
        if (buckets[msg.sender][key].exists) revert BucketExists(name);
        buckets[msg.sender][key] = Bucket(true, true, limit, 0, block.timestamp);
        keys[msg.sender].push(key);
        emit BucketCreated(msg.sender, name, limit);
    }

    function updateBucket(string calldata name, uint256 newLimit, bool active) external whenNotPaused {
        Bucket storage bucket = _bucket(msg.sender, name);
        bucket.limit = newLimit;
        bucket.active = active;
        emit BucketUpdated(msg.sender, name, newLimit, active);
    }

    function addDelegate(address delegate, string calldata name) external whenNotPaused {
        _bucket(msg.sender, name);
        delegates[msg.sender][keccak256(bytes(name))][delegate] = true;
        emit DelegateAdded(msg.sender, delegate, name);
    }

    function removeDelegate(address delegate, string calldata name) external whenNotPaused {
        _bucket(msg.sender, name);
        delegates[msg.sender][keccak256(bytes(name))][delegate] = false;
        emit DelegateRemoved(msg.sender, delegate, name);
    }

    // ---- money in

    function depositETH() external payable whenNotPaused {
        if (msg.value == 0) revert ZeroAmount();
        unallocated[msg.sender][address(0)] += msg.value;
        emit FundsDeposited(msg.sender, msg.value, address(0));
    }

    function depositToken(address token, uint256 amount) external whenNotPaused {
        if (amount == 0) revert ZeroAmount();
        unallocated[msg.sender][token] += amount;
        if (!IERC20(token).transferFrom(msg.sender, address(this), amount)) revert TransferFailed();
        emit FundsDeposited(msg.sender, amount, token);
    }

    function fundBucket(string calldata name, uint256 amount, address token) external whenNotPaused {
        if (amount == 0) revert ZeroAmount();
        if (!_bucket(msg.sender, name).active) revert BucketInactive(name);
        _takeUnallocated(token, amount);
        balances[msg.sender][keccak256(bytes(name))][token] += amount;
        emit BucketFunded(msg.sender, name, amount, token);
    }

    // ---- money moving and leaving

    function spendFromBucket(
        address user,
        string calldata name,
        uint256 amount,
        address recipient,
        address token,
        bytes calldata data
    ) external whenNotPaused {
        _spend(Spend(user, name, amount, recipient, token, data));
    }

    function batchSpend(Spend[] calldata spends) external whenNotPaused {
        for (uint256 i = 0; i < spends.length; i++) _spend(spends[i]);
    }

    function transferBetweenBuckets(string calldata from, string calldata to, uint256 amount, address token)
        external
        whenNotPaused
    {
        if (amount == 0) revert ZeroAmount();
        _bucket(msg.sender, from);
        _bucket(msg.sender, to);
        _takeFromBucket(msg.sender, keccak256(bytes(from)), token, amount);
        balances[msg.sender][keccak256(bytes(to))][token] += amount;
        emit BucketTransfer(msg.sender, from, to, amount, token);
    }

    function withdrawUnallocated(address token, uint256 amount, address recipient) external whenNotPaused {
        if (amount == 0) revert ZeroAmount();
        _takeUnallocated(token, amount);
        _pay(token, recipient, amount);
        emit UnallocatedWithdraw(msg.sender, token, amount, recipient);
    }

    /// Pays the caller everything of one token, unallocated and in every bucket; works while paused.
    function emergencyWithdraw(address token) external {
        uint256 amount = unallocated[msg.sender][token];
        unallocated[msg.sender][token] = 0;
        bytes32[] storage mine = keys[msg.sender];
        for (uint256 i = 0; i < mine.length; i++) {
            amount += balances[msg.sender][mine[i]][token];
            balances[msg.sender][mine[i]][token] = 0;
        }
        if (amount == 0) revert ZeroAmount();
        _pay(token, msg.sender, amount);
        emit EmergencyWithdraw(msg.sender, token, amount);
    }

    // ---- roles, as OpenZeppelin's contracts tell them

    function pause() external onlyOwner whenNotPaused {
        paused = true;
        emit Paused(msg.sender);
    }

    function unpause() external onlyOwner {
        paused = false;
        emit Unpaused(msg.sender);
    }

    function grantRole(bytes32 role, address account) external onlyOwner {
        _grant(role, account);
    }

    function revokeRole(bytes32 role, address account) external onlyOwner {
        hasRole[role][account] = false;
        emit RoleRevoked(role, account, msg.sender);
    }

    function setRoleAdmin(bytes32 role, bytes32 admin) external onlyOwner {
        emit RoleAdminChanged(role, getRoleAdmin[role], admin);
        getRoleAdmin[role] = admin;
    }

    function transferOwnership(address newOwner) external onlyOwner {
        emit OwnershipTransferred(owner, newOwner);
        owner = newOwner;
    }

    // ---- reading

    function bucketOf(address user, string calldata name) external view returns (Bucket memory) {
        return buckets[user][keccak256(bytes(name))];
    }

    function balanceOf(address user, string calldata name, address token) external view returns (uint256) {
        return balances[user][keccak256(bytes(name))][token];
    }

    function isDelegate(address user, string calldata name, address delegate) external view returns (bool) {
        return delegates[user][keccak256(bytes(name))][delegate];
    }

    // ---- inside

    function _grant(bytes32 role, address account) private {
        hasRole[role][account] = true;
        emit RoleGranted(role, account, msg.sender);
    }

    function _bucket(address user, string memory name) private view returns (Bucket storage bucket) {
        bucket = buckets[user][keccak256(bytes(name))];
        if (!bucket.exists) revert NoBucket(name);
    }

    function _takeUnallocated(address token, uint256 amount) private {
        uint256 available = unallocated[msg.sender][token];
        if (available < amount) revert InsufficientFunds(available, amount);
        unallocated[msg.sender][token] = available - amount;
    }

    function _takeFromBucket(address user, bytes32 key, address token, uint256 amount) private {
        uint256 available = balances[user][key][token];
        if (available < amount) revert InsufficientFunds(available, amount);
        balances[user][key][token] = available - amount;
    }

    /// The month is a rolling 30 days that begins again lazily, inside the first spend after it ended.
    function _spend(Spend memory spend) private {
        bytes32 key = keccak256(bytes(spend.name));
        Bucket storage bucket = _bucket(spend.user, spend.name);
        if (msg.sender != spend.user && !delegates[spend.user][key][msg.sender]) revert NotAllowed(msg.sender);
        if (!bucket.active) revert BucketInactive(spend.name);
        if (spend.amount == 0) revert ZeroAmount();
        if (block.timestamp >= bucket.lastReset + PERIOD) {
            bucket.spent = 0;
            bucket.lastReset = block.timestamp;
            emit MonthlyLimitReset(spend.user, spend.name);
        }
        if (bucket.limit != 0 && bucket.spent + spend.amount > bucket.limit) {
            revert OverLimit(bucket.spent, spend.amount, bucket.limit);
        }
        bucket.spent += spend.amount;
        _takeFromBucket(spend.user, key, spend.token, spend.amount);
        emit SpentFromBucket(spend.user, spend.name, spend.amount, spend.recipient, spend.token);
        _pay(spend.token, spend.recipient, spend.amount);
        if (spend.data.length != 0) {
            (bool called,) = spend.recipient.call(spend.data);
            if (!called) revert TransferFailed();
        }
    }

    function _pay(address token, address to, uint256 amount) private {
        if (token == address(0)) {
            (bool sent,) = to.call{value: amount}("");
            if (!sent) revert TransferFailed();
        } else if (!IERC20(token).transfer(to, amount)) {
            revert TransferFailed();
        }
    }
}
