package caddymodule

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

func init() {
	caddy.RegisterModule(Admin{})
}

// Admin answers the requests of the sse_api handler under Caddy's admin API,
// at /sse/. The query parameter `hub` chooses a hub other than `default`. Who
// may use it is the admin endpoint's business; by default that is who is on
// the same machine.
type Admin struct {
	ending <-chan struct{}
}

const adminBase = "/sse"

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.sse",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Provision makes the metrics of the hubs known.
func (a *Admin) Provision(ctx caddy.Context) error {
	a.ending = ctx.Done()
	return registerMetrics(ctx)
}

// Routes implements caddy.AdminRouter.
func (a *Admin) Routes() []caddy.AdminRoute {
	handler := caddy.AdminHandlerFunc(a.serve)
	return []caddy.AdminRoute{
		{Pattern: adminBase, Handler: handler},
		{Pattern: adminBase + "/", Handler: handler},
	}
}

func (a *Admin) serve(w http.ResponseWriter, r *http.Request) error {
	hub, err := chooseHub(r)
	if err == nil {
		err = hub.awaitOr503(r.Context())
	}
	if err == nil {
		q := requests{hub: hub, maxBody: defaultMaxBody, ownQuery: "hub", ending: a.endingOf(hub)}
		err = q.serve(w, r, strings.TrimPrefix(r.URL.Path, adminBase))
	}
	if err != nil {
		p := asProblem(err)
		if hub != nil {
			hub.refused.add(p.refusal())
		}
		return writeProblem(w, p)
	}
	return nil
}

// endingOf returns what is closed when requests that stay open have to end: the
// configuration does, of which this is. If that failed, its admin endpoint serves
// all the same, for the configuration before, and they end with the hub.
func (a *Admin) endingOf(hub *liveHub) <-chan struct{} {
	select {
	case <-a.ending:
		return hub.gone.Done()
	default:
		return a.ending
	}
}

// servedHubs returns the hubs of the configuration that is in force, which need not be
// open. One that is
// about to be may have another of the same name already, and may still fail.
// While the first one starts, it is that.
func servedHubs() []*liveHub {
	active := caddy.ActiveContext()
	if active.Context == nil {
		return liveHubs()
	}
	app, err := active.AppIfConfigured("sse")
	if err != nil {
		return nil
	}
	return app.(*App).all()
}

// noHub says that there is none, or none yet: Caddy's admin endpoint is there
// before the apps are.
func noHub() *problem {
	if caddy.ActiveContext().Context == nil || caddy.Exiting() {
		return problemf(http.StatusServiceUnavailable, "no configuration is in force: Caddy is starting or stopping").with("Retry-After", "1")
	}
	return problemf(http.StatusNotFound, "there is no hub: add the sse directive to a site first")
}

// chooseHub finds the hub among those that are served. Admin modules are set up
// before the apps are, so it cannot be known earlier.
func chooseHub(r *http.Request) (*liveHub, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errQuery()
	}
	name := DefaultHub
	switch given := query["hub"]; {
	case len(given) > 1:
		return nil, problemf(http.StatusBadRequest, "hub is given %d times", len(given)).in("hub")
	case len(given) == 1 && given[0] != "":
		name = given[0]
	}
	var names []string
	for _, hub := range servedHubs() {
		if hub.name == name {
			return hub, nil
		}
		names = append(names, hub.name)
	}
	if len(names) == 0 {
		return nil, noHub()
	}
	return nil, problemf(http.StatusNotFound, "there is no hub %.64q; choose one with ?hub=: %s", name, strings.Join(names, ", ")).in("hub")
}

// Interface guards
var (
	_ caddy.AdminRouter = (*Admin)(nil)
	_ caddy.Provisioner = (*Admin)(nil)
)
