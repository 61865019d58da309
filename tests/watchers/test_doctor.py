"""What `doctor` finds about nodes, and what it advises."""

from __future__ import annotations

from config.chains import Chain
from tests.watchers.node import ScriptedNode
from watchers.doctor import Finding, examine_all

NOBODY = "http://user:secret@127.0.0.1:9/v1/a-key-nobody-may-see"


async def examine(*chains: Chain) -> list[Finding]:
    return await examine_all(chains, timeout_s=0.3)


async def test_node_that_answers_is_named_with_its_software(node: ScriptedNode) -> None:
    assert await examine(node.chain()) == [
        Finding("scripted", f"http://127.0.0.1:{node.port}", "scripted/1.0", ok=True, advice="")
    ]


async def test_chain_is_ok_while_one_node_answers_and_the_others_are_told(node: ScriptedNode) -> None:
    chain = node.chain()
    (finding,) = await examine(Chain(chain.name, chain.id, (NOBODY, *chain.rpc)))

    assert finding.ok
    assert finding.version == "scripted/1.0"
    assert "http://127.0.0.1:9 does not answer" in finding.advice
    assert "start the node, or correct `rpc` in row scripted" in finding.advice


async def test_each_fault_has_its_advice(node: ScriptedNode) -> None:
    async with ScriptedNode() as broken:
        broken.unoffered.add("eth_getBlockByNumber")
        node.chain_id = 5
        wrong, refusing, dead = await examine(
            Chain("one", 1337, (node.url,)), Chain("two", 1337, (broken.url,)), Chain("three", 1, (NOBODY,))
        )

    assert not any(finding.ok for finding in (wrong, refusing, dead))
    assert "serves another chain than 1337: correct `id` or `rpc`" in wrong.advice
    assert "name another node" in refusing.advice
    assert "does not answer" in dead.advice


async def test_throttled_node_asks_for_its_plan(node: ScriptedNode) -> None:
    node.fail("*", "throttled")

    (finding,) = await examine(node.chain())

    assert "refuses (status 429): check the key and the plan" in finding.advice


async def test_nobody_is_shown_a_key(node: ScriptedNode) -> None:
    node.fail("*", "http")
    for finding in await examine(node.chain(), Chain("three", 1, (NOBODY,))):
        assert "key-nobody" not in repr(finding)
        assert "secret" not in repr(finding)
