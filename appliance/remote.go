package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"seedbed/appliance/client"
	"seedbed/appliance/configuration"
	"seedbed/images"
)

// Environment in place of flags, for programs.
const (
	applianceVariable = "SEEDBED_APPLIANCE"
	apiTokenVariable  = "SEEDBED_API_TOKEN"
)

// remote says which appliance the commands ask: that of this host by its socket, or one elsewhere.
type remote struct {
	url         string
	tokenFile   string
	fingerprint string
	caFile      string
}

func (r *remote) flags(f *pflag.FlagSet) {
	f.StringVar(&r.url, "appliance", os.Getenv(applianceVariable), "`URL` of an appliance elsewhere, https://ADDRESS (default: the one of this host; also in "+applianceVariable+")")
	f.StringVar(&r.tokenFile, "token-file", "", "`FILE` with the API token for --appliance, - for standard input (default: "+apiTokenVariable+")")
	f.StringVar(&r.fingerprint, "fingerprint", "", "the site's `FINGERPRINT`, as the log of the appliance's start has it: the only one that --appliance may have")
	f.StringVar(&r.caFile, "ca-file", "", "`FILE` of the CA certificates (PEM) that --appliance may have (default: those of this host)")
}

// client returns a client of the appliance that the flags name.
func (o *options) client(stdin io.Reader) (*client.Client, error) {
	c, err := o.clientConfig()
	if err != nil {
		return nil, err
	}
	if c.URL != "" {
		if c.Token, err = o.remote.token(stdin); err != nil {
			return nil, err
		}
	}
	made, err := client.New(c)
	if err != nil {
		return nil, usageError{err}
	}
	return made, nil
}

// clientConfig is what the flags say, without a token.
func (o *options) clientConfig() (c client.Config, err error) {
	c = client.Config{Socket: o.socket(), URL: o.remote.url}
	if c.URL == "" {
		return c, nil
	}
	if o.remote.fingerprint != "" {
		if c.Fingerprint, err = images.ParseDigest(o.remote.fingerprint); err != nil {
			return c, usageError{fmt.Errorf("--fingerprint: %w", err)}
		}
	}
	if o.remote.caFile != "" {
		if c.CA, err = os.ReadFile(o.remote.caFile); err != nil {
			return c, fmt.Errorf("read the CA certificates: %w", err)
		}
	}
	return c, nil
}

// maxAPIToken bounds the file of an API token in bytes.
const maxAPIToken = 4096

// token returns the API token that a file has, or else the environment.
func (r *remote) token(stdin io.Reader) (string, error) {
	var b []byte
	var err error
	switch r.tokenFile {
	case "":
		b = []byte(os.Getenv(apiTokenVariable))
	case "-":
		b, err = io.ReadAll(io.LimitReader(stdin, maxAPIToken))
	default:
		var f *os.File
		if f, err = configuration.OpenSecret(r.tokenFile); err == nil {
			b, err = io.ReadAll(io.LimitReader(f, maxAPIToken))
			f.Close()
		}
	}
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	if text := strings.TrimSpace(string(b)); text != "" && !strings.ContainsAny(text, " \r\n\t") {
		return text, nil
	}
	return "", usageError{errors.New("an appliance elsewhere needs an API token, in the file of --token-file or in " + apiTokenVariable + "; `seedbed user token new` makes one")}
}

// withAppliance returns a RunE that talks to the running appliance.
func (o *options) withAppliance(fn func(cmd *cobra.Command, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := o.client(cmd.InOrStdin())
		if err != nil {
			return err
		}
		defer c.Close()
		return fn(cmd, c, args)
	}
}

// namesOf lists names of things that the appliance has.
type namesOf func(ctx context.Context, c *client.Client) ([]string, error)

// listed are the names of what a list has.
func listed[T any](list func(c *client.Client, ctx context.Context) ([]T, error), name func(T) string) namesOf {
	return func(ctx context.Context, c *client.Client) (names []string, err error) {
		items, err := list(c, ctx)
		for _, i := range items {
			names = append(names, name(i))
		}
		return names, err
	}
}

// completes returns a function that completes the first arguments of a command, all of them where first is 0, by what the appliance lists:
// each by its own list, those after the last one by that.
func (o *options) completes(first int, lists ...namesOf) cobra.CompletionFunc {
	return o.completesBefore(first, cobra.ShellCompDirectiveNoFileComp, lists...)
}

// completesBefore is completes for a command whose other arguments are completed as a directive says: files.
func (o *options) completesBefore(first int, others cobra.ShellCompDirective, lists ...namesOf) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if first > 0 && len(args) >= first {
			return nil, others
		}
		list := lists[min(len(args), len(lists)-1)]
		c, err := o.client(strings.NewReader(""))
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		names, err := list(cmd.Context(), c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		fits := names[:0]
		for _, n := range names {
			if strings.HasPrefix(n, typed) {
				fits = append(fits, n)
			}
		}
		return fits, cobra.ShellCompDirectiveNoFileComp
	}
}
