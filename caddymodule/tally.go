package caddymodule

// A tally counts the seats of a route by what some of them have in common. It is
// tracked from when a limit first needs it, and costs nothing before.
type tally[K comparable] struct {
	of     func(*seat) K
	counts map[K]int // nil unless it is tracked
}

// track begins to count, if that has not begun.
func (t *tally[K]) track(seats map[*seat]struct{}) {
	if t.counts != nil {
		return
	}
	t.counts = make(map[K]int)
	for p := range seats {
		t.add(p)
	}
}

func (t *tally[K]) add(p *seat) {
	if t.counts != nil {
		t.counts[t.of(p)]++
	}
}

func (t *tally[K]) remove(p *seat) {
	if t.counts == nil {
		return
	}
	key := t.of(p)
	if t.counts[key]--; t.counts[key] == 0 {
		delete(t.counts, key)
	}
}

// count returns how many there are like this one.
func (t *tally[K]) count(p *seat) int {
	if t.counts == nil {
		return 0
	}
	return t.counts[t.of(p)]
}

// tallies are those of a route.
type tallies struct {
	owners    tally[owner]
	homes     tally[home]
	addresses tally[string]
	users     tally[string]
}

// An owner is a connection of a user.
type owner struct{ connection, user string }

// A home is an owner at an address.
type home struct {
	owner
	address string
}

func newTallies() tallies {
	return tallies{
		owners:    tally[owner]{of: (*seat).owner},
		homes:     tally[home]{of: func(p *seat) home { return home{p.owner(), p.address()} }},
		addresses: tally[string]{of: (*seat).address},
		users:     tally[string]{of: func(p *seat) string { return p.owner().user }},
	}
}

// track has counted what the limits need.
func (t *tallies) track(limits *Limits, seats map[*seat]struct{}) {
	if limits.Connections > 0 || limits.PerUser > 0 {
		t.owners.track(seats)
	}
	if limits.PerIP > 0 {
		t.homes.track(seats)
		t.addresses.track(seats)
	}
	if limits.PerUser > 0 {
		t.users.track(seats)
	}
}

// drop forgets what the limits do not need.
func (t *tallies) drop(limits *Limits) {
	if limits.Connections == 0 && limits.PerUser == 0 {
		t.owners.counts = nil
	}
	if limits.PerIP == 0 {
		t.homes.counts, t.addresses.counts = nil, nil
	}
	if limits.PerUser == 0 {
		t.users.counts = nil
	}
}

func (t *tallies) add(p *seat) {
	t.owners.add(p)
	t.homes.add(p)
	t.addresses.add(p)
	t.users.add(p)
}

func (t *tallies) remove(p *seat) {
	t.owners.remove(p)
	t.homes.remove(p)
	t.addresses.remove(p)
	t.users.remove(p)
}
