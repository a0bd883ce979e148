using System.CommandLine;
using Causeway.Cli.Sandbox;
using Causeway.Linux;
using Causeway.Passthrough;
using Causeway.Server;

namespace Causeway.Cli.Options;

/// <summary>The options of <c>causeway serve</c>, which are virtiofsd's and some more: a list of topics.</summary>
internal sealed class ServeSyntax : OptionTopic
{
    private readonly ShareTopic _share = new();
    private readonly SocketTopic _socket = new();
    private readonly DeviceTopic _device = new();
    private readonly DaxTopic _dax = new();
    private readonly AttributeTopic _attributes = new();
    private readonly LockTopic _locks = new();
    private readonly IdentityTopic _identity = new();
    private readonly SandboxTopic _sandbox = new();
    private readonly ProcessTopic _process = new();
    private readonly MigrationTopic _migration = new();
    private readonly Option<string[]> _legacy;
    private readonly Option<bool> _printCapabilities;

    public ServeSyntax()
    {
        _printCapabilities = Switch(
            "--print-capabilities", "say in JSON what this program can do, as managers of virtual machines ask, and end");
        _legacy = Hidden(Value("-o", "LIST", string.Empty));
    }

    /// <summary>Adds every option to a command, in the order in which the help lists them.</summary>
    public void AddAllTo(Command command)
    {
        OptionTopic[] topics =
            [_share, _socket, _device, _dax, _attributes, _locks, _identity, _sandbox, _process, _migration, this];
        foreach (OptionTopic topic in topics)
        {
            topic.AddTo(command);
        }
    }

    /// <summary>Whether the command line asks what the program can do, and nothing else.</summary>
    /// <exception cref="UsageException">It also asks for something that does not go together.</exception>
    public bool AsksForCapabilities(ParseResult result)
    {
        ParsedOptions parsed = Combine(result);
        if (!parsed.IsOn(_printCapabilities))
        {
            return false;
        }

        _socket.CheckBeside(_printCapabilities, parsed);
        return true;
    }

    /// <summary>Gives the options their meaning.</summary>
    /// <exception cref="UsageException">A value is wrong, missing, or asks for something that does not exist yet.</exception>
    public ServeOptions Read(ParseResult result)
    {
        ParsedOptions parsed = Combine(result);
        if (parsed.IsGiven(_legacy))
        {
            parsed.Warn("'-o' is deprecated; say '--cache auto' instead of '-o cache=auto', and so on");
        }

        PassthroughOptions passthrough = _share.Read(parsed);
        passthrough = _attributes.Apply(passthrough, parsed);
        passthrough = _locks.Apply(passthrough, parsed);
        passthrough = _identity.Apply(passthrough, parsed);
        SandboxOptions sandbox = _sandbox.Read(parsed);
        // The capability has no other use for a file server, so that to give it is to say that guests may have it.
        SocketOptions socket = _socket.Read(parsed);
        passthrough = passthrough with
        {
            AllowImmutable = sandbox.Adds(Capability.LinuxImmutable),
            MaxSessions = socket.GuestCount,
        };
        DeviceOptions device = _device.Read(parsed) with { DaxWindowSize = _dax.Read(parsed) };
        ProcessOptions process = _process.Read(parsed);
        if (process.Memory is { } memory)
        {
            device = memory.Apply(device, _device.SaysInFlight(parsed));
            passthrough = memory.Apply(passthrough, device.MaxInFlightBytes);
        }

        if (process.Affinity is { } processors)
        {
            device = device with
            {
                RequestQueues = _device.SaysQueues(parsed)
                    ? device.RequestQueues
                    : VirtioFsServerOptions.DefaultRequestQueues(processors.Count),
                // With a single processor nothing could come meanwhile.
                Polls = device.Polls && processors.Count > 1,
            };
        }

        return new ServeOptions
        {
            Passthrough = passthrough,
            Socket = socket,
            Device = device,
            Sandbox = sandbox,
            Process = process,
            Migration = _migration.Read(parsed),
            Warnings = parsed.Warnings,
        };
    }

    private ParsedOptions Combine(ParseResult result) =>
        new(result, LegacyOptions.Translate(result.GetValue(_legacy) ?? []));
}
