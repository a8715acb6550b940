//go:build linux

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A kit is a directory with what the servers are made of.
type kit struct {
	dir          string
	caddy, naive string // programs
	certificate  certificate
}

// A certificate is for the loopback address, and vouches for itself.
type certificate struct {
	file, keyFile string
	roots         *x509.CertPool
}

// makeKit builds the programs. The directory is the caller's, and its servers
// use it.
func makeKit(ctx context.Context, dir string) (*kit, error) {
	k := &kit{dir: dir, caddy: filepath.Join(dir, "caddy"), naive: filepath.Join(dir, "naive")}
	if err := build(ctx, "..", "./cmd/caddy", k.caddy); err != nil {
		return nil, err
	}
	if err := build(ctx, ".", "./naive", k.naive); err != nil {
		return nil, err
	}
	var err error
	k.certificate, err = makeCertificate(dir)
	return k, err
}

func build(ctx context.Context, module, what, to string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", to, what)
	cmd.Dir = module
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s in %s (run this in the directory bench): %w\n%s", what, module, err, out)
	}
	return nil
}

func makeCertificate(dir string) (certificate, error) {
	c := certificate{file: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"), roots: x509.NewCertPool()}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return c, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return c, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	c.roots.AppendCertsFromPEM(text)
	if err := os.WriteFile(c.file, text, 0o600); err != nil {
		return c, err
	}
	return c, os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600)
}
