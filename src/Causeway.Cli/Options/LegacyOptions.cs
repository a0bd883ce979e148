namespace Causeway.Cli.Options;

/// <summary>
/// The <c>-o LIST</c> form that the C virtiofsd had and old launchers still use. Each item is turned into the long option it
/// stands for, so that everything after this point knows only one form.
/// </summary>
internal static class LegacyOptions
{
    /// <summary>The value of a switch that is on.</summary>
    public const string On = "on";

    /// <summary>The value of a switch that is off.</summary>
    public const string Off = "off";

    /// <summary>Turns lists into long options and their values; the last item of a kind counts.</summary>
    /// <param name="lists">What follows each <c>-o</c>.</param>
    /// <exception cref="UsageException">An item is unknown.</exception>
    public static IReadOnlyDictionary<string, string> Translate(IEnumerable<string> lists)
    {
        var options = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string item in lists.SelectMany(Split))
        {
            if (Translate(item) is ({ } option, var value))
            {
                options[option] = value;
            }
        }

        return options;
    }

    // libvirt doubles a comma that belongs to a value.
    private static IEnumerable<string> Split(string list) =>
        list.Replace(",,", "\0", StringComparison.Ordinal).Split(',').Select(item => item.Replace('\0', ','));

    private static (string? Option, string Value) Translate(string item)
    {
        int equals = item.IndexOf('=', StringComparison.Ordinal);
        (string name, string? value) = equals < 0 ? (item, null) : (item[..equals], item[(equals + 1)..]);
        return (name, value) switch
        {
            ("source", not null) => ("--shared-dir", value),
            ("cache", "none") => ("--cache", "never"),
            ("cache", "auto" or "always" or "metadata") => ("--cache", value),
            ("loglevel", "debug" or "info" or "warn") => ("--log-level", value),
            ("loglevel", "err") => ("--log-level", "error"),
            ("sandbox", "namespace" or "chroot") => ("--sandbox", value),
            ("xattrmap", not null) => ("--xattrmap", value),
            ("modcaps", not null) => ("--modcaps", value),
            ("xattr", null) => ("--xattr", On),
            ("no_xattr", null) => ("--xattr", Off),
            ("readdirplus", null) => ("--no-readdirplus", Off),
            ("no_readdirplus", null) => ("--no-readdirplus", On),
            ("writeback", null) => ("--writeback", On),
            ("no_writeback", null) => ("--writeback", Off),
            ("allow_direct_io", null) => ("--allow-direct-io", On),
            ("no_allow_direct_io", null) => ("--allow-direct-io", Off),
            ("killpriv_v2", null) => ("--killpriv-v2", On),
            ("no_killpriv_v2", null) => ("--killpriv-v2", Off),
            ("posix_acl", null) => ("--posix-acl", "always"),
            ("no_posix_acl", null) => ("--posix-acl", "never"),
            ("security_label", null) => ("--security-label", "always"),
            ("no_security_label", null) => ("--security-label", "never"),
            ("no_posix_lock" or "no_flock", null) => ("--remote-locks", Off),
            // On by default; virtiofsd does not let this form undo --no-announce-submounts either.
            ("announce_submounts", null) => (null, string.Empty),
            _ => throw new UsageException($"'-o {item}' is not an option; '--help' lists the options to use instead of '-o'"),
        };
    }
}
