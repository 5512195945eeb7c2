package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/configuration"
	"seedbed/appliance/fleet"
	"seedbed/appliance/job"
)

// tokenVariable may hold a token, for programs that are given no file.
const tokenVariable = "SEEDBED_TOKEN"

// maxTicket bounds an encoded ticket in bytes.
const maxTicket = 64 << 10

var tokenIDs = listed((*client.Client).Tokens, func(t fleet.Token) string { return t.Short() })

func tokenCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Let programs on other machines fetch and seed images",
		Long: `A token lets "seedbed get" and "seedbed seed" on another machine join swarms of this site. It is a secret: pass it on as
a file, or in the environment as ` + tokenVariable + `. On the appliance's own host none is needed.`}
	cmd.AddCommand(tokenNew(o), tokenLs(o), tokenRevoke(o))
	return cmd
}

func tokenNew(o *options) *cobra.Command {
	var order api.TokenOrder
	var expires time.Duration
	var role string
	var asJSON bool
	cmd := &cobra.Command{Use: "new", Short: "Make a token and print it, on one line", Args: cobra.NoArgs, Long: "New makes a token for programs on other machines.\n\n" + outHelp}
	f := cmd.Flags()
	f.StringVar(&role, "for", "", "what it is good for: get or seed")
	f.StringVar(&order.Image, "image", "", "the only `IMAGE` that it is good for (default: any)")
	f.IntVar(&order.Uses, "uses", 1, "how many programs may join by it")
	f.DurationVar(&expires, "expires", 24*time.Hour, "how long programs may join by it")
	out := f.String("out", "", outUsage)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		if order.Role = job.Role(role); order.Role != job.RoleGet && order.Role != job.RoleSeed {
			return usageError{errors.New("say what the token is for: --for get, or --for seed")}
		}
		order.Expires = api.Duration(expires)
		secret, err := newSecretOutput(*out)
		if err != nil {
			return err
		}
		t, err := c.NewToken(cmd.Context(), order)
		line, id := "", ""
		if err == nil {
			id = t.Token.Short()
			line, err = encodeTicket(t.Ticket)
		}
		if err = secret.keep(line, err, "token "+id, "seedbed token revoke "+id); err != nil {
			return err
		}
		told := map[string]any{"id": t.Token.ID, "expires": t.Token.Expires}
		if secret.file == nil {
			told["token"] = line
		}
		return secret.tell(cmd, asJSON, line, told, "token "+id)
	})
	return cmd
}

func tokenLs(o *options) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "ls", Short: "List the tokens", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Tokens(cmd.Context())
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "TOKEN", "FOR", "IMAGE", "USED", "EXPIRES", "STATE")
		for _, k := range list {
			image := k.ImageName
			if image == "" {
				image = "any"
			}
			t.row(k.Short(), k.Role, image, fmt.Sprintf("%d of %d", k.Used, k.Uses), timeText(k.Expires), tokenState(k))
		}
		return t.flush()
	})
	return cmd
}

func tokenState(t fleet.Token) string {
	switch {
	case t.Revoked:
		return "revoked"
	case time.Now().After(t.Expires):
		return "expired"
	case t.Used >= t.Uses:
		return "used up"
	}
	return "good"
}

func tokenRevoke(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke TOKEN", Short: "End a token; what joined by it gets no new certificate", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, tokenIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		t, err := c.RevokeToken(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, t, "token %s is revoked; certificates given by it end within %v\n", t.Short(), fleet.GuestLifetime)
	})
	return cmd
}

// encodeTicket makes one line of a ticket.
func encodeTicket(t *job.Ticket) (string, error) {
	b, err := json.Marshal(t)
	return base64.StdEncoding.EncodeToString(b), err
}

// errNoTicket says that a token cannot be read; what it holds is not repeated, since it is secret.
var errNoTicket = errors.New("this is no token; `seedbed token new` prints one, on one line")

func decodeTicket(line string) (*job.Ticket, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line))
	if err != nil {
		return nil, errNoTicket
	}
	t := new(job.Ticket)
	if json.Unmarshal(b, t) != nil || len(t.Appliances) == 0 || t.Fingerprint.IsZero() || t.Token == "" {
		return nil, errNoTicket
	}
	return t, nil
}

// readTicket returns the token in a file, "-" for standard input, or else in the environment; nil if there is none.
func readTicket(file string, stdin io.Reader) (*job.Ticket, error) {
	var b []byte
	var err error
	switch file {
	case "":
		line := os.Getenv(tokenVariable)
		if line == "" {
			return nil, nil
		}
		t, err := decodeTicket(line)
		if err != nil {
			return nil, fmt.Errorf("read the token in %s: %w", tokenVariable, err)
		}
		return t, nil
	case "-":
		b, err = io.ReadAll(io.LimitReader(stdin, maxTicket))
	default:
		var f *os.File
		if f, err = configuration.OpenSecret(file); err == nil {
			b, err = io.ReadAll(io.LimitReader(f, maxTicket))
			f.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--token-file: %w", err)
	}
	t, err := decodeTicket(string(b))
	if err != nil {
		return nil, fmt.Errorf("read the token in %s: %w", file, err)
	}
	return t, nil
}
