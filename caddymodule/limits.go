package caddymodule

import (
	"cmp"
	"fmt"
)

// Limits bound what clients can take.
type Limits struct {
	// Streams that are open on this route at one time. Default: no limit.
	Connections int `json:"connections,omitempty"`

	// Those of one address: of IPv6, of one network of 64 bits. It is the
	// address that Caddy takes for the client's, so behind a proxy the server
	// needs `trusted_proxies`. Default: no limit.
	PerIP int `json:"per_ip,omitempty"`

	// Those of one user. Clients that are nobody in particular are not
	// counted. Default: no limit.
	PerUser int `json:"per_user,omitempty"`

	// Channels and patterns of one stream. Default: 100.
	Channels int `json:"channels,omitempty"`

	// Events that a client which comes back may have missed. One that
	// missed more is told so instead. Negative is no limit. Default: 10000.
	Replay int `json:"replay,omitempty"`

	// Bytes of events that a stream may lag behind while it is open, of those
	// published meanwhile on its channels. Default: no limit but what is kept.
	Lag int64 `json:"lag,omitempty"`
}

const defaultLimitChannels = 100

func (l *Limits) setUp() error {
	for _, limit := range []struct {
		name string
		n    int
	}{{"connections", l.Connections}, {"per_ip", l.PerIP}, {"per_user", l.PerUser}, {"channels", l.Channels}} {
		if limit.n < 0 {
			return fmt.Errorf("limits: %s must be at least 1, not %d", limit.name, limit.n)
		}
	}
	if l.Lag < 0 {
		return fmt.Errorf("limits: lag must be at least 1 byte, not %d", l.Lag)
	}
	l.Channels = cmp.Or(l.Channels, defaultLimitChannels)
	return nil
}
