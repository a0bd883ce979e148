using System.Runtime.InteropServices;
using Causeway.Linux;

namespace Causeway.Cli;

/// <summary>
/// Has signals end the process as virtiofsd does: at once, since a guest may be in the middle of something that takes for ever.
/// Only what the process has put into the file system is removed first.
/// </summary>
/// <remarks>Registering starts a thread of the runtime, so it comes after everything that wants the process to have few.</remarks>
internal sealed class EndingSignals : IDisposable
{
    private readonly PosixSignalRegistration[] _registrations;

    /// <summary>Registers.</summary>
    /// <param name="cleanUp">Removes what is to be removed; runs on any thread, at any time, perhaps twice.</param>
    public EndingSignals(Action cleanUp) => _registrations =
    [
        PosixSignalRegistration.Create(PosixSignal.SIGTERM, _ => End(cleanUp)),
        PosixSignalRegistration.Create(PosixSignal.SIGHUP, _ => End(cleanUp)),
        // Not cancelled: the runtime goes on with what the signal does by default.
        PosixSignalRegistration.Create(PosixSignal.SIGINT, _ => cleanUp()),
    ];

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (PosixSignalRegistration registration in _registrations)
        {
            registration.Dispose();
        }
    }

    private static void End(Action cleanUp)
    {
        cleanUp();
        Processes.ExitNow(ExitStatus.Failure);
    }
}
