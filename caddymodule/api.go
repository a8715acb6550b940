package caddymodule

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/sse"
)

func init() {
	caddy.RegisterModule(API{})
}

// API is the endpoint that backends publish to and operators look into, for
// places that Caddy's admin API does not reach: another port, a Unix socket, a
// network. It answers these requests under its base:
//
//	POST   /publish/{channel}          publish the body on the channel
//	POST   /publish                    publish an envelope, or an array or stream of them
//	GET    /                           the hub's numbers
//	GET    /channels                   its channels, with counts
//	GET    /channels/{channel}         one channel with its kept events
//	DELETE /channels/{channel}         end the channel
//	GET    /connections                its open streams
//	DELETE /connections/{id}           end a stream; without id those of ?user= and ?channel=
//	POST   /connections/{id}/channels  change what a stream gets; without id as above
//	GET    /health                     200 while the hub can publish and deliver
//
// Exactly one of `tokens`, `jwt` and `unauthenticated` must be set.
type API struct {
	// The hub to publish to. Default: default.
	Hub string `json:"hub,omitempty"`

	// The path under which the API is, without a slash at its end. Default:
	// none, the API is at the root. The Caddyfile takes it from the
	// directive's path matcher.
	Base string `json:"base,omitempty"`

	// Secrets of which a client must present one, as `Authorization: Bearer
	// <token>`. Placeholders are replaced when the configuration is loaded.
	Tokens []string `json:"tokens,omitempty"`

	// How the tokens of clients are checked. Their claim says what may be
	// published to: who is only to listen must not have one with the same
	// claim, issuer, audience and key.
	JWT *JWT `json:"jwt,omitempty"`

	// Whether everybody who can reach the endpoint may use it.
	Unauthenticated bool `json:"unauthenticated,omitempty"`

	// Channels and prefix patterns that may be published to, ended and looked
	// into. Who sees, changes and ends connections must be allowed `*`.
	// Default: all.
	Allow []string `json:"allow,omitempty"`

	// How many events each publisher may publish: each token, and each user
	// of tokens that are checked. Default: no limit.
	Rate Rate `json:"rate,omitzero"`

	// The largest body of a request, in bytes, or of a line where lines are
	// published as a stream. Default: 1 MiB.
	MaxBody int64 `json:"max_body,omitempty"`

	tokens   [][sha256.Size]byte
	requests requests
	buckets  *buckets
	log      *slog.Logger
}

// defaultMaxBody is the largest body of a request, in bytes.
const defaultMaxBody = 1 << 20

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse_api",
		New: func() caddy.Module { return new(API) },
	}
}

// Provision sets up the endpoint.
func (a *API) Provision(ctx caddy.Context) error {
	a.log = ctx.Slogger()
	if a.Hub == "" {
		a.Hub = DefaultHub
	}
	if err := a.setUp(); err != nil {
		return err
	}
	if err := a.readTokens(); err != nil {
		return err
	}
	if a.JWT != nil {
		if err := a.JWT.provision(ctx); err != nil {
			return fmt.Errorf("jwt: %w", err)
		}
	}
	app, err := ctx.App("sse")
	if err != nil {
		return err
	}
	hub, err := app.(*App).hub(a.Hub)
	if err != nil {
		return err
	}
	ending, err := untilStopping(ctx)
	if err != nil {
		return err
	}
	a.requests = requests{hub: hub, maxBody: a.MaxBody, ending: ending}
	if len(a.Allow) > 0 {
		a.requests.grants.lists = [][]string{a.Allow}
	}
	a.buckets = newBuckets(a.Rate)
	return nil
}

// Cleanup lets go of what checks tokens. It is called after a failed Provision
// too.
func (a *API) Cleanup() error {
	if a.JWT == nil {
		return nil
	}
	return a.JWT.cleanup()
}

// untilStopping returns a channel that is closed when the configuration is about
// to be stopped: before Caddy waits for requests that are open, which it does
// without bound when it exits.
func untilStopping(ctx caddy.Context) (<-chan struct{}, error) {
	module, err := ctx.App("events")
	if err != nil {
		return nil, fmt.Errorf("get the events app: %w", err)
	}
	ending, end := context.WithCancel(ctx) // a configuration that fails ends too
	if err := module.(*caddyevents.App).On("stopping", handler(func(context.Context) { end() })); err != nil {
		end()
		return nil, err
	}
	return ending.Done(), nil
}

// setUp checks the settings and gives them their defaults.
func (a *API) setUp() error {
	ways := 0
	for _, given := range []bool{len(a.Tokens) > 0, a.JWT != nil, a.Unauthenticated} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		return errors.New("it does not say who may publish: add `token <secret>`, `jwt { … }`, or `unauthenticated` if only trusted programs can reach it")
	case ways > 1:
		return errors.New("`token`, `jwt` and `unauthenticated` contradict each other: leave one of them")
	case slices.Contains(a.Tokens, ""):
		return errors.New("a token is empty")
	case a.MaxBody < 0:
		return fmt.Errorf("max_body must be positive, not %d", a.MaxBody)
	case a.MaxBody == 0:
		a.MaxBody = defaultMaxBody
	}
	if a.JWT != nil {
		if err := a.JWT.check(); err != nil {
			return fmt.Errorf("jwt: %w", err)
		}
	}
	if err := a.Rate.setUp(); err != nil {
		return err
	}
	if err := checkBase(a.Base); err != nil {
		return err
	}
	for _, pattern := range a.Allow {
		if err := sse.ValidatePattern(pattern); err != nil {
			return fmt.Errorf("allow: %w", err)
		}
	}
	return nil
}

// checkBase checks the path under which an endpoint is.
func checkBase(base string) error {
	if base != "" && (base[0] != '/' || strings.HasSuffix(base, "/") || strings.Contains(base, "*")) {
		return fmt.Errorf("base %q must begin with a slash, not end with one, and have no * in it, as in /sse; in a Caddyfile it is the path of the matcher", base)
	}
	return nil
}

// readTokens replaces the placeholders in the tokens.
func (a *API) readTokens() error {
	repl := caddy.NewReplacer()
	for i, token := range a.Tokens {
		secret, err := repl.ReplaceOrErr(token, true, true)
		if err != nil {
			return fmt.Errorf("token %d: %w; is the environment variable set?", i+1, err)
		}
		if secret == "" || secret != strings.TrimSpace(secret) {
			return fmt.Errorf("token %d is empty, or has white space around it, which a client cannot send", i+1)
		}
		a.tokens = append(a.tokens, sha256.Sum256([]byte(secret)))
	}
	return nil
}

var sameOrigin = http.NewCrossOriginProtection()

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return a.JWT.conceal(w, r, a.answer)
}

func (a *API) answer(w http.ResponseWriter, r *http.Request) error {
	err := a.serve(w, r)
	if err == nil {
		return nil
	}
	p := asProblem(err)
	a.requests.hub.refused.add(p.refusal())
	a.log.LogAttrs(r.Context(), slog.LevelDebug, "refused a request",
		slog.String("reason", string(p.refusal())), slog.Int("status", p.Status), slog.String("detail", p.Detail))
	return writeProblem(w, p)
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) error {
	q := a.requests
	if err := a.authenticate(r, &q); err != nil {
		return err
	}
	if err := q.hub.awaitOr503(r.Context()); err != nil {
		return err
	}
	if path, ok := belowBase(r.URL.Path, a.Base); ok {
		return q.serve(w, r, path)
	}
	return notFound(r.URL.Path)
}

// belowBase returns what follows a base in a path. Caddy's path matcher ignores
// case, and so must this.
func belowBase(path, base string) (rest string, ok bool) {
	if len(path) < len(base) || !strings.EqualFold(path[:len(base)], base) {
		return path, false
	}
	return path[len(base):], true
}

// authenticate finds out who asks, and sets what they may do.
func (a *API) authenticate(r *http.Request, q *requests) (err error) {
	publisher := ""
	switch {
	case a.Unauthenticated:
		// Nobody is asked who they are, so a page of any site that is open in a
		// browser on this machine or network could publish here.
		err = refusePages(r)
	case a.JWT != nil:
		publisher, err = a.readJWT(r, q)
	default:
		publisher, err = a.findToken(r)
	}
	q.bucket = a.buckets.of(publisher)
	return err
}

// refusePages refuses requests that pages of other origins cause.
func refusePages(r *http.Request) error {
	if err := sameOrigin.Check(r); err != nil {
		return problemf(http.StatusForbidden, "requests from pages of other origins are not accepted: %s", err).because(refusedOrigin)
	}
	return nil
}

// readJWT returns whose token the request has, and restricts it to what that
// names.
func (a *API) readJWT(r *http.Request, q *requests) (publisher string, err error) {
	// A cookie is sent along with what the page of another site sends.
	if err := refusePages(r); err != nil {
		return "", err
	}
	token, err := a.JWT.read(r)
	switch {
	case err != nil:
		return "", err
	case token == nil:
		return "", needToken()
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok && token.user != "" {
		repl.Set(identity, token.user) // for the access log
	}
	q.grants = grants{
		lists: append([][]string{token.channels}, a.requests.grants.lists...),
		token: true, expires: token.expires,
	}
	return token.user, nil
}

func needToken() *problem {
	return unauthorized("a token is needed: send the header Authorization: Bearer <token>")
}

// findToken returns the digest of the request's token if it is one of the
// endpoint's. It compares digests, so that neither the content nor the length of
// a token shows in the time that it takes.
func (a *API) findToken(r *http.Request) (publisher string, err error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", needToken()
	}
	digest := sha256.Sum256([]byte(strings.TrimSpace(token)))
	known := 0
	for _, t := range a.tokens {
		known |= subtle.ConstantTimeCompare(t[:], digest[:])
	}
	if known == 0 {
		return "", invalidToken("the token is not one that this endpoint accepts")
	}
	return string(digest[:]), nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*API)(nil)
	_ caddy.CleanerUpper          = (*API)(nil)
	_ caddyhttp.MiddlewareHandler = (*API)(nil)
)
