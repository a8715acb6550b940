package caddymodule

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
)

// options are the words that may stand in a block, each once, with what reads
// the arguments behind it.
type options map[string]func() error

// parseBlock reads a block, if there is one. Words that are unknown, repeated
// or left over are errors.
func parseBlock(d *caddyfile.Dispenser, known options) error {
	if err := noMore(d); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		parse, ok := known[name]
		if !ok {
			if len(known) == 0 {
				return d.Errf("unexpected %q: there are no options here", name)
			}
			return d.Errf("unrecognized option %q; there are: %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if seen[name] {
			return d.Errf("%s is given twice; it takes all its values in one line", name)
		}
		seen[name] = true
		if err := parse(); err != nil {
			return err
		}
		if err := noMore(d); err != nil {
			return err
		}
	}
	return nil
}

// noMore returns an error if arguments are left.
func noMore(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("unexpected %q", d.Val())
	}
	return nil
}

func parseString(d *caddyfile.Dispenser, into *string) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	*into = d.Val()
	return nil
}

func parseStrings(d *caddyfile.Dispenser, into *[]string) error {
	if *into = d.RemainingArgs(); len(*into) == 0 {
		return d.ArgErr()
	}
	return nil
}

func parseCount(d *caddyfile.Dispenser, into *int) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(d.Val())
	if err != nil || n < 1 {
		return d.Errf("%q is not a whole number of at least 1", d.Val())
	}
	*into = n
	return nil
}

func parseDuration(d *caddyfile.Dispenser, into *caddy.Duration) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	duration, err := caddy.ParseDuration(d.Val())
	if err != nil || duration < time.Millisecond {
		return d.Errf("%q is not a duration of at least a millisecond, such as 15s", d.Val())
	}
	*into = caddy.Duration(duration)
	return nil
}

// parseDurationOrOff reads the word off as a negative duration.
func parseDurationOrOff(d *caddyfile.Dispenser, into *caddy.Duration) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	if d.Val() == "off" {
		*into = caddy.Duration(-time.Second)
		return nil
	}
	d.Prev()
	return parseDuration(d, into)
}

func parseSize(d *caddyfile.Dispenser, into *int64) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	size, err := humanize.ParseBytes(d.Val())
	if err != nil || size < 1 || size > 1<<50 {
		return d.Errf("%q is not a size, such as 1MiB", d.Val())
	}
	*into = int64(size)
	return nil
}

// atDirective gives an error of a whole directive that directive's line.
func atDirective(d caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.Errf("%s: %w", d.Val(), err)
}
