package caddymodule

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	setTimeout   = 10 * time.Second // of one fetch, from the connection to the last byte
	maxSet       = 1 << 20          // bytes
	maxRedirects = 3
	maxUnused    = 5 // reasons that are told
)

// An httpSource fetches a set from an http or https address.
type httpSource struct {
	url    string
	client *http.Client
}

func newHTTPSource(url string) *httpSource {
	return &httpSource{url: url, client: &http.Client{
		Timeout: setTimeout,
		// A connection would be idle for minutes.
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment,
			DisableKeepAlives: true,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: checkRedirect,
	}}
}

// checkRedirect follows a few, but none that leaves https: whoever can change
// what is sent in the clear could put a key of their own into the set.
func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return errors.New("there are too many redirects")
	case via[0].URL.Scheme == "https" && r.URL.Scheme != "https":
		return errors.New("a redirect leads away from https")
	}
	return nil
}

func (s *httpSource) close() { s.client.CloseIdleConnections() }

// fetch returns the set. No error has the address, whose query may hold
// something that is secret.
func (s *httpSource) fetch(ctx context.Context) (fetchedSet, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return fetchedSet{}, errors.New("the address is not one")
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(r)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err // without the address
		}
		return fetchedSet{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fetchedSet{}, fmt.Errorf("the status is %d instead of 200", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSet+1))
	switch {
	case err != nil:
		return fetchedSet{}, err
	case len(body) > maxSet:
		return fetchedSet{}, fmt.Errorf("it has more than %d bytes", maxSet)
	}
	return parseKeySet(body)
}

// parseKeySet reads the keys of a set one by one: those that cannot be used are
// left out (RFC 7517 section 5), while the library would refuse the whole set.
func parseKeySet(body []byte) (fetchedSet, error) {
	var members struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(body, &members) != nil || members.Keys == nil {
		return fetchedSet{}, errors.New("it is not a JSON Web Key Set, which is an object with the member keys")
	}
	set := fetchedSet{keys: []*verifyKey{}}
	for i, raw := range members.Keys {
		k, err := parseSetKey(raw)
		switch {
		case err != nil && len(set.unused) < maxUnused:
			set.unused = append(set.unused, fmt.Sprintf("key %d: %s", i+1, err))
		case k != nil:
			set.keys = append(set.keys, k)
		}
	}
	return set, nil
}

// parseSetKey returns a key of a set, nil if it is not for signatures. No error
// has any part of the key.
func parseSetKey(raw json.RawMessage) (*verifyKey, error) {
	var purpose struct {
		Operations []string `json:"key_ops"`
	}
	var parsed jose.JSONWebKey
	if json.Unmarshal(raw, &purpose) != nil || json.Unmarshal(raw, &parsed) != nil {
		return nil, errors.New("it cannot be read, or is of a type that is not known")
	}
	// RFC 7517 sections 4.2 and 4.3
	if (parsed.Use != "" && parsed.Use != "sig") ||
		(purpose.Operations != nil && !slices.Contains(purpose.Operations, "verify")) {
		return nil, nil
	}
	k := &verifyKey{id: parsed.KeyID, key: parsed.Key}
	switch key := parsed.Key.(type) {
	case []byte:
		k.setSecret(key)
	case *rsa.PrivateKey, *ecdsa.PrivateKey, ed25519.PrivateKey:
		return nil, errors.New("it is a private key; everybody who has seen it can make tokens")
	}
	if len(fitting(k.key)) == 0 {
		return nil, errors.New("it is of a type that no algorithm is for")
	}
	if err := checkStrength(k.key); err != nil {
		return nil, err
	}
	if parsed.Algorithm == "" {
		return k, nil
	}
	alg := jose.SignatureAlgorithm(parsed.Algorithm)
	if !slices.Contains(fitting(k.key), alg) {
		return nil, fmt.Errorf("the algorithm %+.64q is not possible with %s", parsed.Algorithm, describeKey(k.key))
	}
	k.algorithms = []jose.SignatureAlgorithm{alg}
	return k, nil
}
