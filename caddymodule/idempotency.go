package caddymodule

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"

	"github.com/caddy-sse/caddy-sse/sse"
)

// keyHeader names a request so that it can be repeated. Its value is taken as
// it is: quotes around it, as the IETF's draft has them, are a part of it.
const keyHeader = "Idempotency-Key"

// setKey gives the events of a request that has an Idempotency-Key their ids.
func setKey(r *http.Request, events []sse.Event, isArray bool) error {
	keys := r.Header.Values(keyHeader)
	if len(keys) == 0 {
		return nil
	}
	if len(keys) > 1 || keys[0] == "" || len(keys[0]) > sse.MaxID {
		return problemf(http.StatusBadRequest, "%s must be one key of 1 to %d bytes", keyHeader, sse.MaxID).in(keyHeader)
	}
	for i := range events {
		if events[i].ID != "" {
			return problemf(http.StatusBadRequest, "the event has an id and the request an %s; give one of them", keyHeader).in("id").at(i, isArray)
		}
		events[i].ID = keys[0]
		if isArray {
			events[i].ID = arrayID(keys[0], i)
		}
	}
	return nil
}

// arrayID returns the id of an event in an array that has a key. It is a digest
// so that it is short enough, whatever the key, and no id that a publisher
// would choose.
func arrayID(key string, index int) string {
	sum := sha256.Sum256([]byte(key + "\x00" + strconv.Itoa(index))) // no header holds NUL
	return keyHeader + ":" + base64.RawURLEncoding.EncodeToString(sum[:])
}
