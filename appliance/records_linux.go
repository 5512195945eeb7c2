package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"seedbed/appliance/configuration"
	"seedbed/appliance/fleet"
	"seedbed/appliance/store"
	"seedbed/images"
)

// recordsAt returns where the records are. A password has no place in a URL on the command line, which every user of the
// host can read.
func recordsAt(data, location string) (string, error) {
	switch {
	case location == "":
		return filepath.Join(data, "records.db"), nil
	case !store.IsPostgres(location):
		return location, nil
	}
	u, err := url.Parse(location)
	if err != nil {
		return "", usageError{errors.New("--store: the URL cannot be read; it is postgres://USER@HOST/NAME")}
	}
	if _, secret := u.User.Password(); secret || u.Query().Has("password") {
		return "", usageError{errors.New("--store: the password is not given in the URL, where every user of this host can read it; " +
			"put it into a file of mode 0600, alone, and name that with --store-password-file")}
	}
	return location, nil
}

// recordsWith is recordsAt with the password in a file, if one is named. What it returns is not for logs.
func recordsWith(data, location, passwordFile string) (string, error) {
	at, err := recordsAt(data, location)
	if err != nil || passwordFile == "" {
		return at, err
	}
	if !store.IsPostgres(at) {
		return "", usageError{errors.New("--store-password-file is for records in PostgreSQL, which --store names")}
	}
	password, err := configuration.Secret(passwordFile)
	if err != nil {
		return "", fmt.Errorf("--store-password-file: %w", err)
	}
	u, err := url.Parse(at)
	if err != nil {
		return "", err
	}
	user := or(u.User.Username(), u.Query().Get("user"))
	if user == "" {
		return "", usageError{errors.New("--store: the URL names no user, whose password --store-password-file holds; it is postgres://USER@HOST/NAME")}
	}
	u.User = url.UserPassword(user, password)
	return u.String(), nil
}

// openRecords opens the records and the name by which this appliance is known in them.
func (a *appliance) openRecords(ctx context.Context) error {
	location, err := recordsWith(a.config.Data, a.config.Records, a.config.RecordsPassword)
	if err != nil {
		return err
	}
	if a.store, err = store.Open(ctx, location); err != nil {
		return err
	}
	a.closers = append(a.closers, a.store.Close)
	a.id, err = applianceID(a.config.Data)
	return err
}

// applianceID returns the random name of this appliance, which is made at its first start.
func applianceID(data string) (string, error) {
	path := filepath.Join(data, "appliance-id")
	b, err := os.ReadFile(path)
	id := strings.TrimSpace(string(b))
	switch {
	case err == nil && id != "":
		return id, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read the name of this appliance: %w", err)
	}
	var random [6]byte
	rand.Read(random[:]) // never fails (crypto/rand)
	id = hex.EncodeToString(random[:])
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep the name of this appliance: %w", err)
	}
	return id, nil
}

// self is what this appliance says of itself to the others of its site.
func (a *appliance) self() *fleet.Appliance {
	name, err := os.Hostname()
	if err != nil {
		name = a.id
	}
	self := &fleet.Appliance{Name: name, Program: programVersion(), URL: a.url(), Seeder: a.seeder(), Started: time.Now().UTC()}
	if a.http != nil {
		self.Boot = netip.AddrPortFrom(a.address, tcpAddr(a.http).Port())
	}
	return self
}

// usedByRecords is usedByFleet by the records of an appliance that does not run.
func (l *library) usedByRecords(ctx context.Context, d images.Digest) (string, error) {
	location, err := recordsWith(l.data, l.records, l.recordsPassword)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(location); l.records == "" && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	records, err := store.Open(ctx, location)
	if err != nil {
		return "", err
	}
	defer records.Close()
	s, err := records.Load(ctx, time.Now())
	if err != nil {
		return "", err
	}
	var jobs []fleet.Job
	var deployments []fleet.Deployment
	var groups []fleet.Group
	var machines []fleet.Machine
	for _, r := range s.Put {
		switch r := r.(type) {
		case *fleet.Job:
			jobs = append(jobs, *r)
		case *fleet.Deployment:
			deployments = append(deployments, *r)
		case *fleet.Group:
			groups = append(groups, *r)
		case *fleet.Machine:
			machines = append(machines, *r)
		}
	}
	if by := userOf(d, deployments, jobs); by != "" {
		return by, nil
	}
	return cleanedBy(ctx, d, groups, machines, l.repo.Resolve), nil
}
