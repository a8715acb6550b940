package caddymodule

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A client is who asks for a stream, and what it may have.
type client struct {
	user    string // empty is nobody in particular
	address string
	expires time.Time
	fixed   []string // what it gets without asking
	allow   []string // what it may ask for
	own     personal // what of that is for what its request says
}

// identify finds out who asks, by what the directives before this one know, and
// by the token if there is one. What the token's claim names adds to what the
// route allows.
func (s *Subscribe) identify(r *http.Request) (*client, error) {
	c := &client{address: clientAddress(r)}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	token, err := s.readToken(r)
	if err != nil {
		return nil, err
	}
	if token != nil {
		c.expires = token.expires
		c.own.token, c.own.claim = true, token.channels
		if token.user != "" {
			repl.Set(identity, token.user) // as a directive would that authenticates
		}
	}
	if c.user, err = s.readUser(repl, token); err != nil {
		return nil, err
	}
	fixed, filled, bad := (&expansion{repl, s.Limits.Channels, wildcardRefused, s.userParts}).of(s.rules.channels.all)
	if bad != nil {
		return nil, problemf(http.StatusForbidden, "a channel of this route cannot be made for this request: %s", bad)
	}
	c.fixed, c.own.channels = fixed, filled
	allow, filled, bad := (&expansion{repl, maxAllowed, wildcardAlone, s.userParts}).of(s.rules.allow.all)
	if bad != nil {
		s.log.DebugContext(r.Context(), "left out what a placeholder would allow", slog.Any("error", bad))
	}
	c.own.allow = filled
	c.allow = slices.Concat(c.own.claim, allow)
	return c, nil
}

func (s *Subscribe) readToken(r *http.Request) (*bearer, error) {
	if s.JWT == nil {
		return nil, nil
	}
	return s.JWT.read(r)
}

// readUser returns the name of the user: the token's, or what the route says
// where it stands.
func (s *Subscribe) readUser(repl *caddy.Replacer, token *bearer) (string, error) {
	if token != nil && token.user != "" {
		return token.user, nil
	}
	// White space stays: who is called "alice " is another than alice.
	user := strings.Clone(repl.ReplaceAll(s.User, "")) // which has room for the placeholder
	if len(user) > maxUser || !utf8.ValidString(user) || strings.ContainsFunc(user, unicode.IsControl) {
		return "", problemf(http.StatusForbidden, "the name of the user is longer than %d bytes, or has characters in it that none may have", maxUser)
	}
	return user, nil
}

// may reports whether the client may listen to what a name or pattern stands for.
func (c *client) may(name string) bool {
	return coveredByAny(c.allow, name) || coveredByAny(c.fixed, name)
}

// check refuses what the client may not have.
func (s *Subscribe) check(c *client, asked []string) error {
	for _, name := range asked {
		if err := sse.ValidatePattern(name); err != nil {
			return problemf(http.StatusBadRequest, "%s", err).in("channel")
		}
		if !c.may(name) {
			return s.notAllowed(c, name)
		}
	}
	return nil
}

// notAllowed says what would be needed, as RFC 6750 has it, section 3.
func (s *Subscribe) notAllowed(c *client, name string) error {
	switch {
	case s.lacksToken(c):
		return unauthorized("channel %q is not among those that this route allows to everybody: a token is needed that names it", name).in("channel")
	case s.JWT == nil:
		return problemf(http.StatusForbidden, "channel %q is not among those that this route allows", name).in("channel")
	}
	return insufficientScope(name, "channel %q is neither among those that this route allows, nor among those that the token names: a token is needed that does")
}

// lacksToken reports whether the client might have more with a token. Its page has
// to be told that by a 401.
func (s *Subscribe) lacksToken(c *client) bool { return s.JWT != nil && !c.own.token }

// unauthorized is the problem of a request without a token (RFC 6750, section 3.1:
// without an error code).
func unauthorized(format string, args ...any) *problem {
	return problemf(http.StatusUnauthorized, format, args...).with("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q", realm))
}

// insufficientScope is the problem of a token that does not name a channel (RFC
// 6750, section 3.1).
func insufficientScope(name, format string) *problem {
	return problemf(http.StatusForbidden, format, name).in("channel").
		with("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q, error="insufficient_scope"`, realm))
}

// realm is what the tokens are for (RFC 9110, section 11.5).
const realm = "sse"

// clientAddress returns where the client is: behind the proxies that the server
// trusts, if there are any.
func clientAddress(r *http.Request) string {
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	return address
}

// addressKey returns what counts as one address: an IPv4 address, or the network
// of 64 bits that a subscriber of IPv6 usually has for itself.
func addressKey(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return sameOr(address, ip.String())
	}
	network, err := ip.Prefix(64)
	if err != nil {
		return address
	}
	return network.String()
}

// sameOr returns the second of two strings, as the first if they are equal: it
// then takes no memory of its own.
func sameOr(known, s string) string {
	if known == s {
		return known
	}
	return s
}
