package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"seedbed/appliance/api"
	"seedbed/appliance/client"
	"seedbed/appliance/fleet"
)

var userNames = listed((*client.Client).Users, func(u fleet.UserView) string { return u.Name })

var keyIDs = listed((*client.Client).Keys, func(k fleet.KeyView) string { return k.ID })

func userCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "user", Short: "Make and change users and their API tokens",
		Long: `A user is viewer (sees everything but secrets), operator (deploys, captures, admits, edits machines and groups) or admin (users, tokens,
settings, removal of images). Passwords are asked for on the terminal, or read from standard input: one line.`}
	cmd.AddCommand(userLs(o), userNew(o), userEdit(o), userPasswd(o), userRm(o), userTokenCommand(o))
	return cmd
}

func userLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the users", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Users(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "USER", "ROLE", "STATE", "CREATED", "PASSWORD OF")
		for _, u := range list {
			t.row(u.Name, u.Role, map[bool]string{true: "shut out", false: "let in"}[u.Disabled], timeText(u.Created), timeText(u.Changed))
		}
		return t.flush()
	})
	return cmd
}

func userNew(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "new USER", Short: "Make a user; the password is asked for", Args: cobra.ExactArgs(1)}
	asJSON := jsonFlag(cmd)
	role := cmd.Flags().String("role", string(fleet.RoleViewer), "viewer, operator or admin")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		password, err := newPassword(cmd, args[0])
		if err != nil {
			return err
		}
		r := fleet.Role(*role)
		u, err := c.NewUser(cmd.Context(), fleet.UserOrder{Name: args[0], Role: &r, Password: &password})
		if err != nil {
			return err
		}
		return tellUser(cmd, u, "made", *asJSON)
	})
	return cmd
}

func tellUser(cmd *cobra.Command, u *fleet.UserView, what string, asJSON bool) error {
	return tell(cmd, asJSON, u, "user %s (%s) is %s\n", u.Name, u.Role, what)
}

func userEdit(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "edit USER", Short: "Give a user another role, shut one out, or let one in again", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, userNames)}
	asJSON := jsonFlag(cmd)
	role := cmd.Flags().String("role", "", "viewer, operator or admin")
	disabled := cmd.Flags().Bool("disabled", false, "shut the user out, also with tokens; =false lets in again")
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		order := fleet.UserOrder{Name: args[0]}
		if *role != "" {
			r := fleet.Role(*role)
			order.Role = &r
		}
		if cmd.Flags().Changed("disabled") {
			order.Disabled = disabled
		}
		if order.Role == nil && order.Disabled == nil {
			return usageError{errors.New("say what to change: --role, or --disabled")}
		}
		u, err := c.EditUser(cmd.Context(), args[0], 0, order)
		if err != nil {
			return err
		}
		return tellUser(cmd, u, "changed", *asJSON)
	})
	return cmd
}

func userPasswd(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "passwd USER", Short: "Give a user another password; all stays of the user end", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, userNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		password, err := newPassword(cmd, args[0])
		if err != nil {
			return err
		}
		u, err := c.EditUser(cmd.Context(), args[0], 0, fleet.UserOrder{Name: args[0], Password: &password})
		if err != nil {
			return err
		}
		return tell(cmd, *asJSON, u, "user %s has another password\n", u.Name)
	})
	return cmd
}

func userRm(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "rm USER", Short: "Remove a user with all API tokens", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, userNames)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.RemoveUser(cmd.Context(), args[0]); err != nil {
			return err
		}
		return tell(cmd, *asJSON, named{args[0]}, "user %s is removed\n", args[0])
	})
	return cmd
}

func userTokenCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Let programs ask the appliance in a user's name",
		Long: `An API token is for programs, and for this command line on other hosts (--appliance, --token-file). It may what its role and its user's may.
It is a secret: it is printed once, and only its hash is kept.`}
	cmd.AddCommand(userTokenNew(o), userTokenLs(o), userTokenRevoke(o))
	return cmd
}

func userTokenNew(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "new NAME", Short: "Make an API token and print it, on one line; NAME is what it is for", Args: cobra.ExactArgs(1),
		Long: `New makes an API token of a user: on the appliance's own host of anybody, with --appliance of a user whose password is asked for.

` + outHelp}
	asJSON := jsonFlag(cmd)
	f := cmd.Flags()
	user := f.String("user", "", "the `USER` whose token it is")
	role := f.String("role", "", "viewer, operator or admin, at most the user's (default: the user's)")
	expires := f.Duration("expires", 90*24*time.Hour, "how long it is good")
	out := f.String("out", "", outUsage)
	_ = cmd.RegisterFlagCompletionFunc("user", o.completes(0, userNames))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *user == "" {
			return usageError{errors.New("say whose token it is: --user")}
		}
		c, leave, err := o.asUser(cmd, *user)
		if err != nil {
			return err
		}
		defer leave()
		secret, err := newSecretOutput(*out)
		if err != nil {
			return err
		}
		k, err := c.NewKey(cmd.Context(), api.KeyOrder{KeyOrder: fleet.KeyOrder{Name: args[0], User: *user, Role: fleet.Role(*role)}, Expires: api.Duration(*expires)})
		if k == nil {
			k = new(api.NewKey)
		}
		what := "API token " + k.ID
		if err = secret.keep(k.Secret, err, what, "seedbed user token revoke "+k.ID); err != nil {
			return err
		}
		told := k.Secret
		if secret.file != nil {
			k.Secret = ""
		}
		return secret.tell(cmd, *asJSON, told, k, what)
	}
	return cmd
}

// asUser returns a client that may make API tokens of a user: of the local socket, or after a login elsewhere.
func (o *options) asUser(cmd *cobra.Command, user string) (c *client.Client, leave func(), err error) {
	if o.remote.url == "" {
		c = client.Local(o.socket())
		return c, c.Close, nil
	}
	config, err := o.clientConfig()
	if err != nil {
		return nil, nil, err
	}
	password, err := readPassword(cmd, "password of "+user+": ")
	if err != nil {
		return nil, nil, err
	}
	if c, err = client.Login(cmd.Context(), config, user, password); err != nil {
		return nil, nil, err
	}
	return c, func() {
		if err := c.Logout(context.WithoutCancel(cmd.Context())); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "warning: the stay goes on until it expires:", err)
		}
		c.Close()
	}, nil
}

func userTokenLs(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "ls", Short: "List the API tokens", Args: cobra.NoArgs}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Keys(cmd.Context())
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), list)
		}
		t := newTable(cmd.OutOrStdout(), "TOKEN", "FOR", "USER", "ROLE", "CREATED", "EXPIRES")
		for _, k := range list {
			t.row(k.ID, k.Name, k.User, k.Role, timeText(k.Created), timeText(k.Expires))
		}
		return t.flush()
	})
	return cmd
}

func userTokenRevoke(o *options) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke TOKEN", Short: "End an API token at once, by its ID", Args: cobra.ExactArgs(1), ValidArgsFunction: o.completes(1, keyIDs)}
	asJSON := jsonFlag(cmd)
	cmd.RunE = o.withAppliance(func(cmd *cobra.Command, c *client.Client, args []string) error {
		if err := c.RevokeKey(cmd.Context(), args[0]); err != nil {
			return err
		}
		return tell(cmd, *asJSON, map[string]string{"id": args[0]}, "API token %s is revoked\n", args[0])
	})
	return cmd
}

// newPassword asks for a password, on a terminal twice.
func newPassword(cmd *cobra.Command, user string) (string, error) {
	password, err := readPassword(cmd, "new password of "+user+": ")
	if err != nil || !onTerminal(cmd.InOrStdin()) {
		return password, err
	}
	again, err := readPassword(cmd, "the same again: ")
	if err == nil && again != password {
		err = usageError{errors.New("the two passwords differ; nothing was changed")}
	}
	return password, err
}

func onTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// readPassword reads a password: on a terminal unseen, else one line of standard input.
func readPassword(cmd *cobra.Command, prompt string) (string, error) {
	in := cmd.InOrStdin()
	if onTerminal(in) {
		fmt.Fprint(cmd.ErrOrStderr(), prompt)
		b, err := term.ReadPassword(int(in.(*os.File).Fd()))
		fmt.Fprintln(cmd.ErrOrStderr())
		if err != nil {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return string(b), nil
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4096)).ReadString('\n')
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		if err == nil || err == io.EOF {
			return "", usageError{errors.New("no password was given; it is the first line of standard input")}
		}
		return "", fmt.Errorf("read the password: %w", err)
	}
	return line, nil
}
