package caddymodule

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// RedisTLS says which certificates are used towards Redis. The files are PEM, and read
// when the configuration is loaded. Placeholders in their names are replaced.
type RedisTLS struct {
	// The file with the certificates of the authorities that are trusted, instead
	// of those that the system trusts.
	CA string `json:"ca,omitempty"`

	// The files with the certificate by which Redis knows this Caddy, and with its key.
	Certificate string `json:"certificate,omitempty"`
	Key         string `json:"key,omitempty"`
}

func (t *RedisTLS) check() error {
	switch {
	case t == nil:
		return nil
	case *t == RedisTLS{}:
		return errors.New("name a ca, or a certificate and its key; rediss:// in the URL is all that TLS needs else")
	case (t.Certificate == "") != (t.Key == ""):
		return errors.New("a certificate needs a key, and a key a certificate")
	}
	return nil
}

// load reads the files.
func (t *RedisTLS) load(repl *caddy.Replacer) (*tls.Config, error) {
	if t == nil {
		return nil, nil
	}
	names := []string{t.CA, t.Certificate, t.Key}
	for i, name := range names {
		var err error
		if names[i], err = repl.ReplaceOrErr(name, true, true); err != nil {
			return nil, err
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(names[0])
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca: there is no certificate in PEM in %s", names[0])
		}
	}
	if t.Certificate != "" {
		own, err := tls.LoadX509KeyPair(names[1], names[2])
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

// parse reads the block behind tls.
func (t *RedisTLS) parse(d *caddyfile.Dispenser) error {
	err := parseBlock(d, options{
		"ca": func() error { return parseString(d, &t.CA) },
		"certificate": func() error {
			if err := parseString(d, &t.Certificate); err != nil {
				return err
			}
			return parseString(d, &t.Key)
		},
	})
	if err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}
