package redisbroker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"
)

// Check returns why no broker can have these options, whatever Redis says. It connects
// to nothing. Its errors quote nothing of the URL, which may hold a password.
func (o Options) Check() error {
	o = o.withDefaults()
	if _, err := o.keys(); err != nil {
		return err
	}
	_, err := o.client()
	return err
}

// Record names the record: the servers and the keys. Two brokers with one name
// have one record. There is no secret in it. It is empty if the URL cannot be used.
func (o Options) Record() string {
	o = o.withDefaults()
	c, err := parseURL(o.URL)
	if err != nil {
		return ""
	}
	name := strings.Join(c.InitAddress, ",") + "/" + strconv.Itoa(c.SelectDB)
	if c.Sentinel.MasterSet != "" {
		name += " master " + c.Sentinel.MasterSet
	}
	return name + " " + o.Prefix + ":" + o.Hub
}

// refreshEvery is how often Sentinels are asked who the master is, in case their
// message that it is another one was missed.
const refreshEvery = 5 * time.Second

// client returns the settings of the connections. Commands of all goroutines share
// one; the tail has one of its own.
func (o *Options) client() (rueidis.ClientOption, error) {
	c, err := parseURL(o.URL)
	if err != nil {
		return c, err
	}
	if o.TLS != nil {
		if c.TLSConfig == nil {
			return c, errors.New("settings for TLS are given, but the URL does not begin with rediss://")
		}
		c.TLSConfig = o.TLS.Clone()
	} else if c.TLSConfig != nil {
		c.TLSConfig.ServerName = "" // that of the address: Sentinels and Clusters have several
	}
	if c.Sentinel.MasterSet != "" {
		c.Sentinel.TLSConfig = c.TLSConfig
		c.Sentinel.Username, c.Sentinel.Password = o.SentinelUsername, o.SentinelPassword
		c.Sentinel.TopologyRefreshInterval = refreshEvery
	} else if o.SentinelUsername != "" || o.SentinelPassword != "" {
		return c, errors.New("a user of Sentinels is given, but the URL names no master_set")
	}
	c.ClientName = "caddy-sse"
	c.Dialer.Timeout = o.Timeout
	c.Dialer.KeepAlive = 2 * o.Timeout // and a ping as often while nothing is published
	c.ConnWriteTimeout = o.Timeout
	c.PipelineMultiplex = -1  // one connection
	c.AlwaysPipelining = true // which is read all the time, so that its end is noticed when it comes
	c.DisableCache = true
	c.DisableRetry = true // of our own we know more
	return c, nil
}

// sameLogin reports whether connections made with other options are as good. Of TLS it
// knows the certificates.
func (o *Options) sameLogin(other *Options) bool {
	return o.URL == other.URL && sameCertificates(o.TLS, other.TLS) &&
		o.SentinelUsername == other.SentinelUsername && o.SentinelPassword == other.SentinelPassword
}

func sameCertificates(a, b *tls.Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.RootCAs.Equal(b.RootCAs) && slices.EqualFunc(a.Certificates, b.Certificates, func(a, b tls.Certificate) bool {
		return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal)
	})
}

// parameters are what may stand behind the question mark of a URL.
var parameters = []string{"addr", "db", "master_set"}

// parseURL reads a URL. Its errors do not quote it: what stands in a wrong place may be
// a part of a password that was not escaped.
func parseURL(text string) (c rueidis.ClientOption, err error) {
	if text == "" {
		return c, errors.New("the URL of Redis is missing, as in redis://localhost:6379")
	}
	u, err := url.Parse(text)
	if err != nil {
		return c, errors.New("the URL of Redis cannot be read; in a password, what is special in a URL must be escaped, as in p%40ss")
	}
	if !slices.Contains([]string{"redis", "rediss", "valkey", "valkeys", "unix"}, u.Scheme) {
		return c, errors.New("the URL of Redis must begin with redis://, rediss:// or unix://")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return c, errors.New("the parameters of the URL of Redis cannot be read")
	}
	for name := range query {
		if !slices.Contains(parameters, name) {
			return c, fmt.Errorf("a parameter of the URL of Redis is unknown; there are: %s", strings.Join(parameters, ", "))
		}
	}
	if u.Scheme == "unix" && (u.Host != "" || u.Path == "") {
		return c, errors.New("the URL of Redis must name a socket by its whole path, as in unix:///run/redis.sock")
	}
	if c, err = rueidis.ParseURL(text); err != nil { // it knows a number where one must be, and little else
		return c, errors.New("the URL of Redis must end with the number of a database, as in redis://localhost:6379/0, or not name one")
	}
	return c, nil
}
