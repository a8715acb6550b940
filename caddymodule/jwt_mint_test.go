package caddymodule_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"sync"
	"testing"
)

// Keys of the tests. Signatures are made with the standard library, so that the
// library that verifies them does not check itself.
var testKeys = sync.OnceValue(func() (k struct {
	rsa, otherRSA, weakRSA *rsa.PrivateKey
	p256, p384, p521       *ecdsa.PrivateKey
	ed                     ed25519.PrivateKey
},
) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.otherRSA, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.weakRSA, _ = rsa.GenerateKey(rand.Reader, 1024)
	k.p256, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.p384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.p521, _ = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

const testSecret = "a secret of forty bytes, which is enough"

// publicPEM returns a public key in PEM.
func publicPEM(t testing.TB, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// A header is what is added to, or replaced in, the header of a token.
type header map[string]any

// mint signs claims, which are JSON, with a secret or a private key. The
// algorithm says how; the header may lie about it.
func mint(t testing.TB, alg string, key any, claims string, more header) string {
	t.Helper()
	h := header{"alg": alg, "typ": "JWT"}
	maps.Copy(h, more)
	text, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	return mintRaw(t, alg, key, string(text), claims)
}

// mintRaw is mint with a header that is given as JSON.
func mintRaw(t testing.TB, alg string, key any, header, claims string) string {
	t.Helper()
	input := base64url(header) + "." + base64url(claims)
	return input + "." + base64url(string(signature(t, alg, key, []byte(input))))
}

func base64url(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func signature(t testing.TB, alg string, key any, input []byte) []byte {
	t.Helper()
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write(input)
		digest = h.Sum(nil)
	}
	var out []byte
	var err error
	switch alg[:2] {
	case "HS":
		mac := hmac.New(hash.New, key.([]byte))
		mac.Write(input)
		return mac.Sum(nil)
	case "RS":
		out, err = rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), hash, digest)
	case "PS":
		out, err = rsa.SignPSS(rand.Reader, key.(*rsa.PrivateKey), hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	case "ES":
		k := key.(*ecdsa.PrivateKey)
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, k, digest)
		size := (k.Curve.Params().BitSize + 7) / 8
		if err == nil {
			out = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		}
	case "Ed":
		out = ed25519.Sign(key.(ed25519.PrivateKey), input)
	default:
		t.Fatalf("cannot sign with %s", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A jwk is a key of a set.
type jwk map[string]any

// with returns the key with that set; nil removes.
func (k jwk) with(name string, value any) jwk {
	k = maps.Clone(k)
	k[name] = value
	if value == nil {
		delete(k, name)
	}
	return k
}

// publicJWK returns a public key, or a secret, as a key of a set.
func publicJWK(id string, key any) jwk {
	number := func(n *big.Int, size int) string { return base64url(string(n.FillBytes(make([]byte, size)))) }
	switch key := key.(type) {
	case []byte:
		return jwk{"kid": id, "kty": "oct", "k": base64url(string(key))}
	case *rsa.PrivateKey:
		return jwk{"kid": id, "kty": "RSA", "n": base64url(string(key.N.Bytes())), "e": "AQAB"}
	case *ecdsa.PrivateKey:
		size := (key.Curve.Params().BitSize + 7) / 8
		return jwk{"kid": id, "kty": "EC", "crv": key.Curve.Params().Name, "x": number(key.X, size), "y": number(key.Y, size)}
	case ed25519.PrivateKey:
		return jwk{"kid": id, "kty": "OKP", "crv": "Ed25519", "x": base64url(string(key.Public().(ed25519.PublicKey)))}
	}
	panic("no key")
}

// jwkSet returns a set as JSON.
func jwkSet(keys ...jwk) []byte {
	if keys == nil {
		keys = []jwk{}
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return text
}
