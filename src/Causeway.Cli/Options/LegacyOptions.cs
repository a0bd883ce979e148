namespace Causeway.Cli.Options;

/// <summary>
/// The <c>-o LIST</c> form that the C virtiofsd had and old launchers still use. Each item is rewritten as the long option
/// it stands for, so that everything after this point knows only one form.
/// </summary>
internal static class LegacyOptions
{
    /// <summary>Rewrites every <c>-o LIST</c> of a command line.</summary>
    /// <param name="arguments">The command line.</param>
    /// <returns>The same without <c>-o</c>.</returns>
    /// <exception cref="UsageException">An item is unknown, or the list is missing.</exception>
    public static IReadOnlyList<string> Expand(IReadOnlyList<string> arguments)
    {
        var expanded = new List<string>(arguments.Count);
        for (int i = 0; i < arguments.Count; i++)
        {
            string argument = arguments[i];
            if (argument == "-o")
            {
                i++;
                if (i == arguments.Count)
                {
                    throw new UsageException("option '-o' needs a list, for example '-o source=/srv/share,cache=auto'");
                }

                expanded.AddRange(Split(arguments[i]).Select(Translate).OfType<string>());
            }
            else if (argument.StartsWith("-o", StringComparison.Ordinal) && argument.Length > 2)
            {
                expanded.AddRange(Split(argument[2..]).Select(Translate).OfType<string>());
            }
            else
            {
                expanded.Add(argument);
            }
        }

        return expanded;
    }

    // libvirt doubles a comma that belongs to a value.
    private static IEnumerable<string> Split(string list) =>
        list.Replace(",,", "\0", StringComparison.Ordinal).Split(',').Select(item => item.Replace('\0', ','));

    private static string? Translate(string item)
    {
        int equals = item.IndexOf('=', StringComparison.Ordinal);
        (string name, string? value) = equals < 0 ? (item, null) : (item[..equals], item[(equals + 1)..]);
        return (name, value) switch
        {
            ("source", not null) => $"--shared-dir={value}",
            ("cache", "none") => "--cache=never",
            ("cache", "auto" or "always" or "metadata") => $"--cache={value}",
            ("loglevel", "debug" or "info" or "warn") => $"--log-level={value}",
            ("loglevel", "err") => "--log-level=error",
            ("sandbox", "namespace" or "chroot") => $"--sandbox={value}",
            ("xattrmap", not null) => $"--xattrmap={value}",
            ("modcaps", not null) => $"--modcaps={value}",
            ("xattr", null) => "--xattr",
            ("no_xattr", null) => "--xattr=false",
            ("readdirplus", null) => "--no-readdirplus=false",
            ("no_readdirplus", null) => "--no-readdirplus",
            ("writeback", null) => "--writeback",
            ("no_writeback", null) => "--writeback=false",
            ("allow_direct_io", null) => "--allow-direct-io",
            ("no_allow_direct_io", null) => "--allow-direct-io=false",
            ("killpriv_v2", null) => "--killpriv-v2",
            ("no_killpriv_v2", null) => "--no-killpriv-v2",
            ("posix_acl", null) => "--posix-acl",
            ("no_posix_acl", null) => "--posix-acl=never",
            ("security_label", null) => "--security-label",
            ("no_security_label", null) => "--security-label=never",
            // On by default; virtiofsd does not let this form undo --no-announce-submounts either.
            ("announce_submounts" or "no_posix_lock" or "no_flock", null) => null,
            _ => throw new UsageException($"'-o {item}' is not an option; see 'causeway serve --help' for the options"),
        };
    }
}
