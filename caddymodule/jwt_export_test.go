package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

var (
	ErrNoKeys      = errNoKeys
	TakeParameter  = func(query, name string) (string, takenParameter) { return takeParameter(query, name) }
	CleanURI       = func(uri, name string) string { return parameterCleaner(name).inURI(uri) }
	WriteTestError = func(w http.ResponseWriter, err error) error { return writeProblem(w, asProblem(err)) }
)

func (t takenParameter) Values() []string { return t.values }
func (t takenParameter) Malformed() bool  { return t.malformed }

// A Bearer is a bearer.
type Bearer struct {
	User     string
	Channels []string
	Expires  time.Time
}

func (j *JWT) Check() error                       { return j.check() }
func (j *JWT) Provision(ctx caddy.Context) error  { return j.provision(ctx) }
func (j *JWT) Cleanup() error                     { return j.cleanup() }
func (j *JWT) Parse(d *caddyfile.Dispenser) error { return j.parse(d) }
func (j *JWT) ReadClaims(payload []byte) (*Bearer, error) {
	return export(j.readClaims(payload, time.Now()))
}
func (j *JWT) Read(r *http.Request) (*Bearer, error) { return export(j.read(r)) }

func export(b *bearer, err error) (*Bearer, error) {
	if b == nil {
		return nil, err
	}
	return &Bearer{b.user, b.channels, b.expires}, err
}

// ProblemOf returns the status and header of the problem in an error.
func ProblemOf(err error) (status int, header http.Header) {
	var p *problem
	if !errors.As(err, &p) {
		return 0, nil
	}
	return p.Status, p.header
}

// How often sets of keys are fetched.
const (
	SetInterval = setInterval
	AskInterval = askInterval
	AskPatience = askPatience
)

// A Source is where a KeySet is fetched from.
type Source func(ctx context.Context) (body []byte, err error)

func (f Source) fetch(ctx context.Context) (fetchedSet, error) {
	body, err := f(ctx)
	if err != nil {
		return fetchedSet{}, err
	}
	return parseKeySet(body)
}

func (Source) close() {}

// A KeySet is a keySet.
type KeySet struct{ *keySet }

// StartKeySet returns a set that is being fetched.
func StartKeySet(source Source, log *zap.Logger) KeySet {
	return KeySet{startKeySet(source, func() *zap.Logger { return log })}
}

// Find returns how many keys of the id there are.
func (s KeySet) Find(ctx context.Context, id string) (int, error) {
	keys, err := s.find(ctx, id)
	return len(keys), err
}

// ParseKeySet returns the ids of the keys that can be used, and what cannot.
func ParseKeySet(body []byte) (ids, unused []string, err error) {
	set, err := parseKeySet(body)
	for _, k := range set.keys {
		ids = append(ids, k.id)
	}
	return ids, set.unused, err
}

// A gate is a handler that says who presents a token, for tests of what Caddy
// does around it.
type gate struct {
	JWT *JWT `json:"jwt,omitempty"`
}

func init() {
	caddy.RegisterModule(gate{})
	httpcaddyfile.RegisterHandlerDirective("jwt_gate", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		g := &gate{new(JWT)}
		h.Next() // the directive's name
		return g, g.JWT.parse(h.Dispenser)
	})
	httpcaddyfile.RegisterDirectiveOrder("jwt_gate", httpcaddyfile.Before, "respond")
}

func (gate) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.jwt_gate", New: func() caddy.Module { return new(gate) }}
}

func (g *gate) Provision(ctx caddy.Context) error { return g.JWT.provision(ctx) }
func (g *gate) Cleanup() error                    { return g.JWT.cleanup() }

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	return g.JWT.conceal(w, r, g.serve)
}

func (g *gate) serve(w http.ResponseWriter, r *http.Request) error {
	switch r.URL.Query().Get("do") {
	case "fail":
		return errors.New("it was asked for")
	case "panic":
		panic(http.ErrAbortHandler)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	b, err := g.JWT.read(r)
	if err != nil {
		return writeProblem(w, asProblem(err))
	}
	if b == nil {
		b = new(bearer)
	}
	addLogField(r.Context(), zap.Dict("sse", zap.String("user", b.user)))
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	repl.Set("http.auth.user.id", b.user)
	return json.NewEncoder(w).Encode(map[string]any{
		"user": b.user, "channels": b.channels, "query": r.URL.RawQuery,
		"seen": repl.ReplaceAll("{http.request.uri} {http.request.orig_uri} {http.request.orig_uri.query} {http.request.uri.query.token}", "") + r.RequestURI,
	})
}
