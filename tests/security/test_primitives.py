"""The ciphers that secure aggregation stands on, against the vectors of their standards."""

import hmac
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from fedbiomed.common.exceptions import FedbiomedCertificateError, FedbiomedSecaggCrypterError
from fedbiomed.common.security import shamir
from fedbiomed.common.security.derivation import agreed_key, derived_key
from fedbiomed.common.security.framing import joined
from fedbiomed.common.security.identity import Identity, fingerprint, is_signed, load_identity, made_identity
from fedbiomed.common.security.keystream import BLOCK, Stream, apply_streams, keystream
from fedbiomed.common.security.peers import MemoryPeers
from fedbiomed.common.security.sealing import exchanged, seal, seal_to, unseal, unseal_from

hexed = bytes.fromhex


def test_x25519_is_that_of_rfc_7748() -> None:
    # section 5.2, first vector; section 6.1, Bob's key with Alice's public one
    first = X25519PrivateKey.from_private_bytes(hexed("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4"))
    bob = X25519PrivateKey.from_private_bytes(hexed("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    assert (
        exchanged(first, hexed("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")).hex()
        == "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"
    )
    assert (
        exchanged(bob, hexed("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")).hex()
        == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"
    )


def test_ed25519_is_that_of_rfc_8032() -> None:
    # section 7.1, test 2
    identity = Identity(hexed("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert identity.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = identity.sign(b"\x72")
    assert signature.hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert is_signed(identity.public, signature, b"\x72")
    assert not is_signed(identity.public, signature, b"\x73")
    assert not is_signed(Identity.drawn().public, signature, b"\x72")
    assert not is_signed(b"no key", signature, b"\x72")


def test_hkdf_is_that_of_rfc_5869() -> None:
    # appendix A.1
    info, okm = hexed("f0f1f2f3f4f5f6f7f8f9"), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    prk = hexed("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    assert HKDF(SHA256(), 42, bytes(range(13)), info).derive(b"\x0b" * 22).hex() == okm
    assert HKDFExpand(SHA256(), 42, info).derive(prk).hex() == okm
    # 32 bytes are one step of the expansion: HMAC(PRK, info || 01), and PRK = HMAC(salt, secret)
    assert derived_key(prk, "pair", 3) == hmac.digest(prk, joined("pair", 3) + b"\x01", "sha256")
    assert agreed_key(b"\x0b" * 22, bytes(range(13)), "x") == hmac.digest(prk, joined("x") + b"\x01", "sha256")


def test_the_keystream_is_that_of_rfc_8439() -> None:
    # appendix A.1, vectors 1 and 2: key and nonce of zeros, blocks 0 and 1
    blocks = hexed(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )
    assert keystream(bytes(32), 16).astype("<u8").tobytes() == blocks
    assert int(keystream(bytes(32), 1)[0]) == int.from_bytes(blocks[:8], "little")


def test_a_stream_has_no_seams_and_chunks_have_keys_of_their_own() -> None:
    size = 2 * BLOCK + 5
    one = keystream(b"a" * 32, size)
    # the library's own cipher over all bytes at once
    whole = Cipher(ChaCha20(b"a" * 32, bytes(16)), mode=None).encryptor().update(bytes(8 * size))
    assert one.astype("<u8").tobytes() == whole
    vector = np.arange(size, dtype=np.uint64)
    apply_streams(vector, [Stream(lambda _: b"a" * 32, is_added=True), Stream(lambda _: b"b" * 32, is_added=False)])
    assert np.array_equal(vector, np.arange(size, dtype=np.uint64) + one - keystream(b"b" * 32, size))
    keys = {0: b"a" * 32, 1: b"b" * 32}
    parts = np.zeros(12, np.uint64)
    apply_streams(parts, [Stream(keys.__getitem__, is_added=True)], chunk_size=8)
    assert np.array_equal(parts, np.concatenate([keystream(keys[0], 8), keystream(keys[1], 4)]))


def test_parts_are_joined_without_doubt() -> None:
    lists: list[tuple[str | bytes | int, ...]] = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), (1, 2), (2, 1), (b"\x00" * 8,), ()]
    assert len({joined(*parts) for parts in lists}) == len(lists)
    with pytest.raises(OverflowError):
        joined(-1)


@pytest.mark.parametrize(
    "public", [bytes(32), b"\x01" + bytes(31), hexed("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), b""]
)
def test_keys_of_low_order_are_refused(public: bytes) -> None:
    with pytest.raises(FedbiomedSecaggCrypterError, match="low order"):
        exchanged(X25519PrivateKey.generate(), public)


def test_sealed_messages_open_for_their_reader_and_place_only() -> None:
    key, private = b"k" * 32, X25519PrivateKey.generate()
    sealed, to = seal(key, b"content", "round", 1), seal_to(private.public_key().public_bytes_raw(), b"content", "round", 1)
    assert unseal(key, sealed, "round", 1) == unseal_from(private, to, "round", 1) == b"content"
    assert b"content" not in sealed + to
    for refused in (
        lambda: unseal(key, sealed, "round", 2),
        lambda: unseal(b"x" * 32, sealed, "round", 1),
        lambda: unseal(key, sealed[:-1], "round", 1),
        lambda: unseal(key, b"", "round", 1),
        lambda: unseal_from(X25519PrivateKey.generate(), to, "round", 1),
        lambda: unseal_from(private, to[:20], "round", 1),
    ):
        with pytest.raises(FedbiomedSecaggCrypterError):
            refused()


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (2, 3), (4, 6), (26, 50)])
def test_enough_shares_give_the_secret_and_fewer_do_not(threshold: int, count: int) -> None:
    rng = random.Random(7)
    for secret in (bytes(32), b"\xff" * 32, rng.randbytes(32)):
        shares = shamir.split(secret, threshold, count)
        for _ in range(5):
            some = {index: shares[index - 1] for index in rng.sample(range(1, count + 1), threshold)}
            assert shamir.join(some) == secret
            some.popitem()
            if some:
                assert _joined_or_none(some) != secret
    assert len(set(shares)) == count or threshold == 1


def _joined_or_none(shares: dict[int, bytes]) -> bytes | None:
    try:
        return shamir.join(shares)
    except FedbiomedSecaggCrypterError:
        return None


def test_the_shares_are_of_the_polynomial() -> None:
    # two points of a line: f(1) = 7, f(2) = 5, so f(0) = 9
    assert int.from_bytes(shamir.join({1: (7).to_bytes(33, "big"), 2: (5).to_bytes(33, "big")}), "big") == 9
    with pytest.raises(FedbiomedSecaggCrypterError, match="not of one secret"):  # f(0) = P - 1 does not fit into 32 bytes
        shamir.join({1: (shamir.PRIME - 1).to_bytes(33, "big")})
    for wrong in ({}, {0: bytes(33)}, {1: bytes(32)}):
        with pytest.raises(FedbiomedSecaggCrypterError):
            shamir.join(wrong)
    for secret, threshold, count in ((bytes(31), 2, 3), (bytes(32), 4, 3), (bytes(32), 0, 3)):
        with pytest.raises(FedbiomedSecaggCrypterError):
            shamir.split(secret, threshold, count)


def test_an_identity_is_made_once_and_readable_by_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "identity.key"
    made = made_identity(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert made_identity(path).public == load_identity(path).public == made.public
    assert fingerprint(made.public) == made.fingerprint
    assert [len(group) for group in made.fingerprint.split("-")] == [4] * 16
    path.chmod(0o640)
    with pytest.raises(FedbiomedCertificateError, match="chmod 600"):
        load_identity(path)
    path.chmod(0o600)
    for content in ("", "zz", "00" * 31):
        path.write_text(content)
        with pytest.raises(FedbiomedCertificateError, match="backup"):
            load_identity(path)
    with pytest.raises(FedbiomedCertificateError, match="no identity"):
        load_identity(tmp_path / "none")


def test_makers_of_one_identity_get_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: made_identity(tmp_path / "identity.key").public, range(16)))
    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["identity.key"]


def test_the_first_key_of_a_peer_is_pinned() -> None:
    peers, first, second = MemoryPeers(), Identity.drawn(), Identity.drawn()
    peers.admit("node_1", first.public)
    peers.admit("node_1", first.public)
    peers.admit("node_2", second.public)
    with pytest.raises(FedbiomedCertificateError, match=f"{second.fingerprint}, but {first.fingerprint} is pinned"):
        peers.admit("node_1", second.public)
