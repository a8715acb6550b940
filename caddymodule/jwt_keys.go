package caddymodule

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// The algorithms of RFC 7518 section 3.1 and RFC 8037. Whoever may choose `none`
// signs nothing, so it is not among them.
var (
	hmacs      = []jose.SignatureAlgorithm{jose.HS256, jose.HS384, jose.HS512}
	rsas       = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}
	ecdsas     = []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512}
	asymmetric = slices.Concat(rsas, ecdsas, []jose.SignatureAlgorithm{jose.EdDSA})
	supported  = slices.Concat(hmacs, asymmetric)
)

// hashSizes are the sizes in bytes of what HMAC computes, and with that the
// least size of a secret by RFC 7518 section 3.2.
var hashSizes = map[jose.SignatureAlgorithm]int{jose.HS256: 32, jose.HS384: 48, jose.HS512: 64}

// leastRSA is the least size of a key, in bits (RFC 7518 section 3.3).
const leastRSA = 2048

// A verifyKey is a key that verifies signatures, and what it is for.
type verifyKey struct {
	id  string // in a set; may be empty
	key any    // []byte, *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey

	// The algorithms that it is for. That of a set has the one that it names, if
	// it names one; otherwise what it is for is configured, or follows from its
	// type.
	algorithms []jose.SignatureAlgorithm

	secretSize int // of a secret, in bytes
}

// parseAlgorithms returns the algorithms of these names.
func parseAlgorithms(names []string) ([]jose.SignatureAlgorithm, error) {
	var algorithms []jose.SignatureAlgorithm
	for _, name := range names {
		alg := jose.SignatureAlgorithm(name)
		switch {
		case strings.EqualFold(name, "none"):
			return nil, errors.New("alg: none is never possible; with it everybody could make tokens")
		case !slices.Contains(supported, alg):
			return nil, fmt.Errorf("alg: %q is not known; there are: %s", name, listAlgorithms(supported))
		case slices.Contains(algorithms, alg):
			return nil, fmt.Errorf("alg: %s is given twice", name)
		}
		algorithms = append(algorithms, alg)
	}
	return algorithms, nil
}

func listAlgorithms(algorithms []jose.SignatureAlgorithm) string {
	names := make([]string, len(algorithms))
	for i, alg := range algorithms {
		names[i] = string(alg)
	}
	return strings.Join(names, ", ")
}

// newVerifyKey returns the key of a configured text: a public key in PEM, or a
// secret. The algorithms are what it is to be used for; none is the one that is
// usual for its type. They must all fit it: whoever could choose HMAC for a
// public key could sign with what everybody knows.
//
// No error has any part of the text.
func newVerifyKey(text string, algorithms []jose.SignatureAlgorithm) (*verifyKey, error) {
	k := &verifyKey{algorithms: algorithms}
	if strings.Contains(text, "-----BEGIN") {
		key, err := parsePEM(text)
		if err != nil {
			return nil, err
		}
		k.key = key
	} else {
		k.setSecret([]byte(text))
	}
	if err := checkStrength(k.key); err != nil {
		return nil, err
	}
	for _, alg := range algorithms {
		if !slices.Contains(fitting(k.key), alg) {
			return nil, fmt.Errorf("it is %s, with which %s is not possible; there are for it: %s",
				describeKey(k.key), alg, listAlgorithms(fitting(k.key)))
		}
	}
	if len(algorithms) == 0 {
		k.algorithms = fitting(k.key)[:1]
	}
	return k, nil
}

// setSecret makes it a key of HMAC. The library refuses secrets that are
// shorter than the hash. Such a one is filled up with zeros, as HMAC itself does
// (RFC 2104 section 2), which gives the same signatures.
func (k *verifyKey) setSecret(secret []byte) {
	k.secretSize = len(secret)
	if len(secret) == 0 {
		k.key = secret
		return
	}
	k.key = append(slices.Clone(secret), make([]byte, max(0, hashSizes[jose.HS512]-len(secret)))...)
}

// shortFor returns the algorithm that the secret is too short for, empty if
// there is none.
func (k *verifyKey) shortFor() jose.SignatureAlgorithm {
	for _, alg := range k.algorithms {
		if k.secretSize < hashSizes[alg] {
			return alg
		}
	}
	return ""
}

// parsePEM returns the public key in a text that is one block of PEM.
func parsePEM(text string) (crypto.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("it looks like PEM but cannot be read; are its line breaks still there?")
	case strings.Contains(string(rest), "-----BEGIN"):
		return nil, errors.New("it holds more than one block of PEM; leave the one there that tokens are checked with, or use jwks")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = certificate.PublicKey
		}
	default:
		if strings.HasSuffix(block.Type, "PRIVATE KEY") {
			return nil, errors.New("it is a private key, which only the issuer should have; use the public key that belongs to it")
		}
		return nil, fmt.Errorf("it is a %.64q, and not a public key or certificate", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("it is a %s that cannot be read", block.Type)
	}
	if len(fitting(key)) == 0 {
		return nil, errors.New("it is of a type that no algorithm is for; use RSA, ECDSA with P-256, P-384 or P-521, or Ed25519")
	}
	return key, nil
}

// checkStrength refuses keys that protect nothing.
func checkStrength(key any) error {
	switch key := key.(type) {
	case []byte:
		if len(key) == 0 {
			return errors.New("it is empty")
		}
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < leastRSA {
			return fmt.Errorf("it has %d bits, which is too weak; use an RSA key of %d bits or more", bits, leastRSA)
		}
	}
	return nil
}

// fitting returns the algorithms that are possible with a key, the usual one
// first; none for keys that are of no use.
func fitting(key any) []jose.SignatureAlgorithm {
	switch key := key.(type) {
	case []byte:
		return hmacs
	case *rsa.PublicKey:
		return rsas
	case *ecdsa.PublicKey:
		// The curve belongs to the algorithm (RFC 7518 section 3.4).
		switch key.Curve {
		case elliptic.P256():
			return ecdsas[0:1]
		case elliptic.P384():
			return ecdsas[1:2]
		case elliptic.P521():
			return ecdsas[2:3]
		}
	case ed25519.PublicKey:
		return []jose.SignatureAlgorithm{jose.EdDSA}
	}
	return nil
}

func describeKey(key any) string {
	switch key := key.(type) {
	case []byte:
		return "a secret"
	case *rsa.PublicKey:
		return "an RSA key"
	case *ecdsa.PublicKey:
		return "a key of the curve " + key.Curve.Params().Name
	}
	return "an Ed25519 key"
}

// accepts reports whether a token that names the algorithm may be checked with
// the key.
func (j *JWT) accepts(k *verifyKey, alg jose.SignatureAlgorithm) bool {
	switch {
	case !slices.Contains(j.algorithms, alg) || !slices.Contains(fitting(k.key), alg):
		return false
	case len(k.algorithms) > 0:
		return slices.Contains(k.algorithms, alg)
	case len(j.Algorithms) > 0:
		return true
	}
	return alg == fitting(k.key)[0]
}
