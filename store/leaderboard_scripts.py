"""Lua of store/leaderboards.py. Each script begins with PARTS as KEYS; a rebuild's own keys follow them.

Members are 16 bytes; the empty member marks a key as whole, at -inf so that it is last and nobody's neighbour. Scores
and numbers of changes are integers below 2^53. Lists run best first: higher score, then higher id.
"""

from __future__ import annotations

PARTS = ("scores", "changes", "told", "waiting", "journal", "lease")
BUILT_PARTS = ("scores", "changes")

MISSING, BUILT, BUILDING = 0, 1, 2
"""First element of an answer: whether the standings are there, or being made."""

_BEGIN = """
local scores, changes, told, waiting, journal, lease = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]

local function state()
    if redis.call('ZSCORE', scores, '') and redis.call('HEXISTS', changes, '') == 1 then return 1 end
    if redis.call('EXISTS', lease) == 1 and redis.call('EXISTS', journal) == 1 then return 2 end
    return 0
end

local function above(score) return redis.call('ZCOUNT', scores, '(' .. score, '+inf') end
"""

_TELLING = """
local now, interval = tonumber(ARGV[1]), tonumber(ARGV[2])
local answer = {1, -1}

-- What somebody was told last: rank, score, when (ms); nil when nothing.
local function last(member)
    local said = redis.call('HGET', told, member)
    if said then return string.match(said, '^(%d+) (%S+) (%d+)$') end
end

-- Tell somebody now, or note that they wait. `before`: their rank before this, where nothing was told yet.
local function tell(member, score, before)
    local rank = above(score) + 1
    local rank_told, score_told, at = last(member)
    if at and tonumber(rank_told) == rank and tonumber(score_told) == tonumber(score) then
        redis.call('ZREM', waiting, member)
    elseif at and now < tonumber(at) + interval then
        redis.call('ZADD', waiting, 'NX', tonumber(at) + interval, member)
    else
        redis.call('ZREM', waiting, member)
        redis.call('HSET', told, member, rank .. ' ' .. score .. ' ' .. string.format('%.0f', now))
        for _, each in ipairs({member, score, rank, tonumber(rank_told or before or -1)}) do
            answer[#answer + 1] = each
        end
    end
end

local function finish()
    local first = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')
    if first[2] then answer[2] = tonumber(first[2]) end
    return answer
end
"""

APPLY = (
    _BEGIN
    + _TELLING
    + """
local built = state()
if redis.call('EXISTS', journal) == 1 then
    for i = 3, #ARGV, 3 do
        local known = redis.call('HGET', journal, ARGV[i])
        if not known or tonumber(string.match(known, '^%d+')) < tonumber(ARGV[i + 2]) then
            redis.call('HSET', journal, ARGV[i], ARGV[i + 2] .. ' ' .. ARGV[i + 1])
        end
    end
end
if built ~= 1 then return {built} end

-- 1. Which changes are news, where their people stood, and who was beside them.
local moves, by_member, beside = {}, {}, {}
local function neighbours(member)
    local place = redis.call('ZREVRANK', scores, member)
    local from = math.max(place - 1, 0)
    for _, each in ipairs(redis.call('ZREVRANGE', scores, from, place + 1)) do
        if each ~= '' and each ~= member then beside[#beside + 1] = each end
    end
end
for i = 3, #ARGV, 3 do
    local member, new, change = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local known = redis.call('HGET', changes, member)
    local move = by_member[member]
    if move then known = move.change end
    if not known or tonumber(known) < tonumber(change) then
        if not move then
            move = {member = member, old = redis.call('ZSCORE', scores, member)}
            if move.old then
                move.before = above(move.old) + 1
                neighbours(member)
            end
            moves[#moves + 1] = move
            by_member[member] = move
        end
        move.new, move.change = new, change
    end
end

-- 2. Write them.
for _, move in ipairs(moves) do
    redis.call('HSET', changes, move.member, move.change)
    if move.new ~= '' then
        redis.call('ZADD', scores, move.new, move.member)
    else
        redis.call('ZREM', scores, move.member)
        redis.call('HDEL', told, move.member)
        redis.call('ZREM', waiting, move.member)
    end
end

-- 3. Who is beside them now, and whom of all these it concerns.
for _, move in ipairs(moves) do
    if move.new ~= '' then neighbours(move.member) end
end
for _, move in ipairs(moves) do
    if move.new ~= '' and not (move.old and tonumber(move.old) == tonumber(move.new)) then
        tell(move.member, move.new, move.before)
    end
end
local seen = {}
for _, member in ipairs(beside) do
    local score = redis.call('ZSCORE', scores, member)
    if score and not by_member[member] and not seen[member] then
        seen[member] = true
        local passed = 0
        for _, move in ipairs(moves) do
            if move.new ~= '' and tonumber(move.new) > tonumber(score) then passed = passed + 1 end
            if move.old and tonumber(move.old) > tonumber(score) then passed = passed - 1 end
        end
        if passed ~= 0 then tell(member, score, above(score) + 1 - passed) end
    end
end
return finish()
"""
)

TELL = (
    _BEGIN
    + _TELLING
    + """
if state() ~= 1 then return {state()} end
for i = 3, #ARGV do
    local score = redis.call('ZSCORE', scores, ARGV[i])
    if score then tell(ARGV[i], score, -1) end
end
return finish()
"""
)

FLUSH = (
    _BEGIN
    + _TELLING
    + """
if state() ~= 1 then return {state()} end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, ARGV[3])) do
    local score = redis.call('ZSCORE', scores, member)
    if score then tell(member, score, -1) else redis.call('ZREM', waiting, member) end
end
return finish()
"""
)

COUNT = (
    _BEGIN
    + """
if state() ~= 1 then return {state()} end
return {1, redis.call('ZCARD', scores) - 1}
"""
)

RANK = (
    _BEGIN
    + """
if state() ~= 1 then return {state()} end
local score = redis.call('ZSCORE', scores, ARGV[1])
if not score then return {1} end
return {1, score, above(score) + 1}
"""
)

_PAGING = """
local function listed(from, count)
    local found = redis.call('ZREVRANGE', scores, from, from + count - 1, 'WITHSCORES')
    if found[#found - 1] == '' then  -- the mark, which is last
        found[#found] = nil
        found[#found] = nil
    end
    if #found == 0 then return {1} end
    local answer = {1, from, above(found[2]) + 1}
    for _, each in ipairs(found) do answer[#answer + 1] = each end
    return answer
end
"""

PAGE = (
    _BEGIN
    + _PAGING
    + """
if state() ~= 1 then return {state()} end
local score, member = ARGV[2], ARGV[3]
if score == '' then return listed(0, tonumber(ARGV[1])) end

-- Bytes, one by one: Lua's own comparison of strings is that of a locale.
local function is_below(one, other)
    for i = 1, math.min(#one, #other) do
        local a, b = string.byte(one, i), string.byte(other, i)
        if a ~= b then return a < b end
    end
    return #one < #other
end

-- The first of those with this score whose id is lower: found by halves, since the one of the place may have moved.
local low = above(score)
local high = low + redis.call('ZCOUNT', scores, score, score)
while low < high do
    local middle = math.floor((low + high) / 2)
    if is_below(redis.call('ZREVRANGE', scores, middle, middle)[1], member) then high = middle else low = middle + 1 end
end
return listed(low, tonumber(ARGV[1]))
"""
)

AROUND = (
    _BEGIN
    + _PAGING
    + """
if state() ~= 1 then return {state()} end
local place, limit = redis.call('ZREVRANK', scores, ARGV[2]), tonumber(ARGV[1])
if not place then return {1} end
local from = math.min(place - math.floor(limit / 2), redis.call('ZCARD', scores) - 1 - limit)
return listed(math.max(from, 0), limit + 1)
"""
)

STATES = (
    _BEGIN
    + """
if state() ~= 1 then return {state()} end
local answer = {1}
for i = 1, #ARGV do
    answer[#answer + 1] = redis.call('ZSCORE', scores, ARGV[i]) or ''
    answer[#answer + 1] = redis.call('HGET', changes, ARGV[i]) or ''
end
return answer
"""
)

BEGIN = (
    _BEGIN
    + """
if not redis.call('SET', lease, ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('DEL', journal)
redis.call('HSET', journal, '', ARGV[1])
redis.call('PEXPIRE', journal, ARGV[2])
redis.call('ZADD', KEYS[7], '-inf', '')
redis.call('PEXPIRE', KEYS[7], ARGV[2])
redis.call('HSET', KEYS[8], '', ARGV[1])
redis.call('PEXPIRE', KEYS[8], ARGV[2])
return 1
"""
)

_OURS = """
local function is_ours() return redis.call('GET', lease) == ARGV[1] and redis.call('HGET', journal, '') == ARGV[1] end
"""

FILL = (
    _BEGIN
    + _OURS
    + """
if not is_ours() then return 0 end
for i = 3, #ARGV, 3 do
    if ARGV[i + 1] ~= '' then redis.call('ZADD', KEYS[7], ARGV[i + 1], ARGV[i]) end
    redis.call('HSET', KEYS[8], ARGV[i], ARGV[i + 2])
end
for _, key in ipairs({lease, journal, KEYS[7], KEYS[8]}) do redis.call('PEXPIRE', key, ARGV[2]) end
return 1
"""
)

SWAP = (
    _BEGIN
    + _OURS
    + """
if not is_ours() then return 0 end
if redis.call('ZCARD', KEYS[7]) ~= ARGV[2] + 1 or redis.call('HLEN', KEYS[8]) ~= ARGV[3] + 1 then return 0 end
local written = redis.call('HGETALL', journal)
for i = 1, #written, 2 do
    local member = written[i]
    if member ~= '' then
        local change, score = string.match(written[i + 1], '^(%d+) (.*)$')
        local known = redis.call('HGET', KEYS[8], member)
        if not known or tonumber(known) < tonumber(change) then
            redis.call('HSET', KEYS[8], member, change)
            if score ~= '' then redis.call('ZADD', KEYS[7], score, member) else redis.call('ZREM', KEYS[7], member) end
        end
    end
end
redis.call('RENAME', KEYS[7], scores)
redis.call('RENAME', KEYS[8], changes)
for _, key in ipairs({scores, changes, told, waiting}) do redis.call('EXPIRE', key, ARGV[4]) end
redis.call('DEL', journal, lease)
return 1
"""
)

FORGET = (
    _BEGIN
    + """
if redis.call('GET', lease) == ARGV[1] then redis.call('DEL', journal, lease) end
return redis.call('DEL', KEYS[7], KEYS[8])
"""
)

KEEP = (
    _BEGIN
    + """
for _, key in ipairs({scores, changes, told, waiting}) do redis.call('EXPIRE', key, ARGV[1]) end
return 1
"""
)

DROP = (
    _BEGIN
    + """
return redis.call('DEL', scores, changes, told, waiting, journal, lease)
"""
)

ALL = (
    APPLY, TELL, FLUSH, COUNT, RANK, PAGE, AROUND, STATES,
    BEGIN, FILL, SWAP, FORGET, KEEP, DROP,
)  # fmt: skip
